"""Where refinement moved a contour most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sharpcontour.contours.types import Ring, Rings
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError

_POINTS = 512  # vertices of a ring that are looked at
_PAIRS = 1 << 20  # of a point and an edge, looked at together: 16 MiB an array
_LEAST_MOVE = 0.5  # px of the image; less cannot be seen
_WINDOW = 0.45  # side of a close-up, as a share of the square root of the object's box area
_INWARDS = 0.22  # how far it is shifted from the vertex into the object, as a share of its side
_AGAIN = 0.6  # how much less a further place on the same object counts


@dataclass(frozen=True)
class Place:
    """A square of an image in which a contour moved.

    Attributes:
        instance: whose contour.
        x, y: its top left corner, continuous pixels.
        side: its length, pixels.
        move: how far the contour moved, pixels.
    """

    instance: int
    x: float
    y: float
    side: float
    move: float

    def overlaps(self, other: Place) -> bool:
        """Whether the two squares share more than a tenth of the smaller one."""
        wide = min(self.x + self.side, other.x + other.side) - max(self.x, other.x)
        high = min(self.y + self.side, other.y + other.side) - max(self.y, other.y)
        return max(wide, 0) * max(high, 0) > 0.1 * min(self.side, other.side) ** 2


def largest_moves(coarse: Detections, refined: Detections, count: int) -> list[Place]:
    """Up to ``count`` places where refined contours are furthest from the coarse ones, spread over the instances.

    A move counts as the share of its close-up that it crosses, times the score; further places on an object already
    chosen count less. Whether a move was for the better plays no part.

    Raises:
        InputError: if the two are not the same instances of the same image.
    """
    check_pair(coarse, refined)
    candidates = [
        place
        for k, (before, after) in enumerate(zip(coarse.rings, refined.rings, strict=True))
        if after is not before
        for place in moves(before, after, refined.size, k)
    ]
    scores = refined.scores.tolist()
    chosen: list[Place] = []
    while candidates and len(chosen) < count:
        taken = [place.instance for place in chosen]
        best = max(candidates, key=lambda p: p.move / p.side * scores[p.instance] * _AGAIN ** taken.count(p.instance))
        chosen.append(best)
        candidates = [place for place in candidates if not place.overlaps(best)]
    return chosen


def check_pair(coarse: Detections, refined: Detections) -> None:
    """Raise InputError unless both hold the same number of instances on images of one size."""
    if len(coarse) != len(refined) or coarse.size != refined.size:
        raise InputError(
            f"coarse and refined detections must be of the same instances: {len(coarse)} on {coarse.size} there, "
            f"{len(refined)} on {refined.size} here"
        )


def moves(coarse: Rings, refined: Rings, size: tuple[int, int], instance: int = 0) -> list[Place]:
    """Where one object's contour moved, the furthest first; of places that overlap only the first.

    Args:
        coarse: before.
        refined: after.
        size: (height, width) of the image.
        instance: for :attr:`Place.instance`.
    """
    before = [ring for ring in coarse if len(ring) >= 3 and np.isfinite(ring).all()]
    after = [ring for ring in refined if len(ring) >= 3 and np.isfinite(ring).all()]
    if not before or not after:
        return []
    seen = np.concatenate([_spaced(ring) for ring in after])
    low, high = seen.min(0), seen.max(0)
    side = float(np.clip(_WINDOW * (high - low).prod() ** 0.5, min(size) / 10, min(size) / 3))
    # Most parts of an object of many, such as specks, are carried through unrefined.
    same = {ring.astype(np.float64).tobytes() for ring in before}
    vertices = [_spaced(ring) for ring in after if ring.astype(np.float64).tobytes() not in same]
    if not vertices:
        return []
    points = np.concatenate(vertices)
    # More of the object in sight: it lies where its middle is.
    inwards = (high + low) / 2 - points
    inwards /= np.maximum(np.hypot(*inwards.T), 1e-9)[:, None]
    corners = (points + (_INWARDS * inwards - 0.5) * side).clip(0, (size[1] - side, size[0] - side))
    far = _distances(points, before)
    found: list[Place] = []
    for index in np.argsort(-far, kind="stable"):
        if far[index] < _LEAST_MOVE:
            break
        place = Place(instance, float(corners[index, 0]), float(corners[index, 1]), side, float(far[index]))
        if not any(place.overlaps(other) for other in found):
            found.append(place)
    return found


def _spaced(ring: Ring) -> np.ndarray:
    """Some vertices (n, 2) of a ring, float64: all of a short one."""
    return ring[:: max(len(ring) // _POINTS, 1)].astype(np.float64)


def _distances(points: np.ndarray, rings: Sequence[Ring]) -> np.ndarray:
    """Distance of each point (n, 2) to the nearest edge of the rings."""
    begin = np.concatenate(rings).astype(np.float64)
    edge = np.concatenate([np.roll(ring, -1, 0) for ring in rings]).astype(np.float64) - begin
    length = np.maximum((edge**2).sum(1), 1e-12)
    found = np.empty(len(points))
    step = max(_PAIRS // len(begin), 1)
    for first in range(0, len(points), step):
        to = points[first : first + step, None].astype(np.float64) - begin
        part = ((to * edge).sum(-1) / length).clip(0, 1)
        found[first : first + step] = np.hypot(*np.moveaxis(to - part[..., None] * edge, -1, 0)).min(1)
    return found
