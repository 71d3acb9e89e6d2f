"""Which rings of an object lie inside which: its parts, each an outline with its holes."""

from __future__ import annotations

import cv2
import numpy as np

from sharpcontour.contours.types import Rings

_POINTS = 9  # middles of edges that decide together, at least: one alone may lie on the other ring


def enclosed_areas(rings: Rings) -> np.ndarray:
    """The area (R,) that each of R rings (n, 2) encloses, in square pixels."""
    areas = []
    for ring in rings:
        x, y = np.asarray(ring, np.float64).T
        areas.append(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
    return np.array(areas)


def ring_boxes(rings: Rings) -> tuple[np.ndarray, np.ndarray]:
    """The corners (R, 2) x, y of the boxes around R rings (n, 2), not none: the lowest and the highest."""
    return np.array([ring.min(0) for ring in rings]), np.array([ring.max(0) for ring in rings])


def nesting(rings: Rings) -> np.ndarray:
    """Which rings lie inside which, (R, R) bool: ring i of R lies inside ring j.

    Rings of one object may touch at corners. Where they cross, most of a ring's edges decide.
    """
    inside = np.zeros((len(rings), len(rings)), bool)
    if len(rings) < 2:
        return inside
    areas = enclosed_areas(rings)
    low, high = ring_boxes(rings)
    outlines = [ring.reshape(-1, 1, 2).astype(np.float32) for ring in rings]
    for i, ring in enumerate(rings):
        around = (low <= high[i]).all(1) & (high >= low[i]).all(1) & (areas > areas[i])
        middles = ((ring + np.roll(ring, -1, 0))[:: max(len(ring) // _POINTS, 1)] / 2).tolist()
        for j in np.flatnonzero(around):
            votes = sum(cv2.pointPolygonTest(outlines[j], xy, False) > 0 for xy in middles)
            inside[i, j] = 2 * votes > len(middles)
    return inside


def holes(rings: Rings) -> np.ndarray:
    """Which of an object's R rings (n, 2) are holes, (R,) bool: those inside an odd number of the others."""
    odd: np.ndarray = nesting(rings).sum(1) % 2 == 1
    return odd


def parts_of(rings: Rings) -> list[Rings]:
    """The parts of an object by the even-odd rule: each an outer ring, first, and the holes right inside it.

    A ring inside an even number of others is an outer one, so an island in a hole is a part of its own.
    """
    inside = nesting(rings)
    depth, areas = inside.sum(1), enclosed_areas(rings)
    parts = {int(i): [rings[i]] for i in np.flatnonzero(depth % 2 == 0)}
    for i in np.flatnonzero(depth % 2):
        around = [j for j in np.flatnonzero(inside[i]).tolist() if j in parts]
        if around:
            parts[min(around, key=lambda j: areas[j])].append(rings[i])
        else:  # only where rings cross
            parts[int(i)] = [rings[i]]
    return list(parts.values())
