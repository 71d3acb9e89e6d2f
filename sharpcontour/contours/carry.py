"""Carrying displacements back to an outline as it was given, so that what does not move keeps exactly its pixels."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sharpcontour.contours.types import Contours, Ring, Rings

SAME = 1e-3  # px, up to which two vertices are one


def carry(ring: Ring, start: np.ndarray, end: np.ndarray, min_move: float) -> Ring:
    """Return a ring after N of its points have moved; where these stayed, its own vertices stay.

    Args:
        ring: (n, 2), as it was given.
        start: (N, 2), N points evenly spaced along the ring, the first one its first vertex.
        end: (N, 2), where these have moved to.
        min_move: pixels; a point that moved no farther counts as unmoved.

    Returns:
        ``ring`` itself where nothing moved; else a new ring (m, 2), float32, with vertices of its own in the parts that
        stayed and the moved points in the others.
    """
    moved = np.hypot(*(end - start).T) > min_move
    if not moved.any():
        return ring
    count = len(start)
    edges = np.roll(ring, -1, 0) - ring
    length = np.hypot(edges[:, 0], edges[:, 1]) + 1e-9
    place = np.concatenate([[0.0], np.cumsum(length)[:-1]]) * (count / length.sum())  # of own vertices, 0 to N
    before = np.floor(place).astype(int) % count
    stays = ~moved[before] & ~moved[(before + 1) % count]
    # At the ends of a part that moved its last unmoved point is needed too.
    needed = moved | np.roll(moved, 1) | np.roll(moved, -1)
    points = np.concatenate([ring[stays], np.where(moved[:, None], end, start)[needed]])
    order = np.argsort(np.concatenate([place[stays], np.flatnonzero(needed)]), kind="stable")
    points = points[order].astype(np.float32)
    repeated = np.abs(points - np.roll(points, 1, 0)).max(1) < SAME  # a vertex that stayed and the point on it
    return points[~repeated]


def carried_back(contours: Contours, end: Tensor, min_move: float) -> tuple[list[Rings], list[Rings]]:
    """K objects as they were traced, and after their vertices have moved to ``end`` (R, N, 2), on the CPU.

    A ring that nothing moved is the same array in both.

    Args:
        contours: with ``outlines``.
        end: in the pixels of ``contours.vertices``.
        min_move: of the same pixels; a vertex that moved no farther keeps its place.
    """
    before, after = ([list(rings) for rings in contours.carried] for _ in range(2))
    start, moved = (points.detach().float().cpu().numpy() for points in (contours.vertices, end))
    for k, outline, points, to in zip(contours.instance.tolist(), contours.outlines, start, moved, strict=True):
        before[k].append(outline)
        after[k].append(carry(outline, points, to, min_move))
    return before, after
