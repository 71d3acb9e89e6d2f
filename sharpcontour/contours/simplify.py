"""Fewer vertices: an outline from which no vertex that is dropped lies farther than a given distance.

The method is Douglas and Peucker's (1973), ring by ring. OpenCV's approxPolyDP is not used, for it drops more vertices
at its end and may exceed the distance. A ring stays as it is where it would collapse, cross itself or another ring of
its object, or come to lie inside or outside another one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sharpcontour.contours.nesting import enclosed_areas, nesting
from sharpcontour.contours.types import Ring, Rings

_LEAST_AREA = 0.5  # of a ring's area must be left
_RUN = 32  # edges of a ring that are compared with others together
_AT_ONCE = 512  # pairs of such runs in one pass


@dataclass
class Simplified:
    """An object with fewer vertices.

    Attributes:
        rings: the same rings in the same order.
        deviation: in pixels, how far the farthest vertex that was dropped lies from the edge that took its place.
        kept: how many rings stay as they were for what simplifying would have done to them.
    """

    rings: Rings
    deviation: float
    kept: int


def simplified(rings: Rings, tolerance: float) -> Simplified:
    """Drop vertices of an object.

    Args:
        rings: R rings (n, 2) in pixels, combined by the even-odd rule.
        tolerance: in pixels, how far a dropped vertex may lie from the new outline.
    """
    thinned = [_thinned(ring, tolerance) for ring in rings]
    found = [ring for ring, _ in thinned]
    changed = np.array([len(new) < len(old) for new, old in zip(found, rings, strict=True)], bool)
    wrong = changed & _collapsed(rings, found)
    kept, inside = wrong, nesting(rings)
    while True:  # a ring that is put back may cross one that is not
        found = [old if keep else new for old, new, keep in zip(rings, found, kept, strict=True)]
        wrong = changed & ~kept & _disturbed(found, inside)
        if not wrong.any():
            break
        kept = kept | wrong
    deviation = max((far for (_, far), keep in zip(thinned, kept, strict=True) if not keep), default=0.0)
    return Simplified(found, deviation, int(kept.sum()))


def _thinned(ring: Ring, tolerance: float) -> tuple[Ring, float]:
    """A ring with fewer vertices, and how far from it the farthest of the dropped ones lies."""
    count = len(ring)
    closed = np.concatenate([ring, ring[:1]]).astype(np.float64)
    far = int(((closed - closed[0]) ** 2).sum(1).argmax())
    keep = np.zeros(count + 1, bool)
    keep[[0, far, count]] = True
    deviation, spans = 0.0, [(0, far), (far, count)]
    while spans:
        begin, end = spans.pop()
        if end - begin < 2:
            continue
        distances = _from_edge(closed[begin + 1 : end], closed[begin], closed[end])
        worst = int(distances.argmax())
        if distances[worst] > tolerance:
            middle = begin + 1 + worst
            keep[middle] = True
            spans += [(begin, middle), (middle, end)]
        else:
            deviation = max(deviation, float(distances[worst]))
    return ring[keep[:count]], deviation


def _from_edge(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances (n,) of points (n, 2) from the edge between a and b."""
    along, to = b - a, points - a
    length = max(float(along @ along), 1e-300)
    part = np.clip(to @ along / length, 0, 1)
    return np.hypot(*(to - part[:, None] * along).T)


def _collapsed(rings: Rings, found: Rings) -> np.ndarray:
    """Which rings (R,) bool have hardly any area left."""
    few = np.array([len(ring) < 3 for ring in found], bool)
    return few | (enclosed_areas(found) < _LEAST_AREA * enclosed_areas(rings))


def _disturbed(found: Rings, inside: np.ndarray) -> np.ndarray:
    """Which rings (R,) bool cross one of the object, themselves too, or lie inside others than ``inside`` says."""
    wrong = np.zeros(len(found), bool)
    wrong[list(_crossing(found))] = True
    differs = nesting(found) != inside
    return wrong | differs.any(0) | differs.any(1)


def _crossing(rings: Rings) -> set[int]:
    """Rings with an edge that crosses another one; edges that only touch do not cross."""
    begins = [_padded(ring) for ring in rings]
    if not begins:
        return set()
    owner = np.repeat(np.arange(len(rings)), [len(runs) for runs in begins])
    runs = np.concatenate(begins)  # (runs, _RUN + 1, 2): vertices in a row
    low, high = runs.min(1), runs.max(1)
    first, second = [], []
    for i in range(len(runs)):
        near = i + np.flatnonzero((low[i:] <= high[i]).all(1) & (high[i:] >= low[i]).all(1))
        first.append(np.full(len(near), i))
        second.append(near)
    one, other = np.concatenate(first), np.concatenate(second)
    found: set[int] = set()
    for k in range(0, len(one), _AT_ONCE):
        a, b = one[k : k + _AT_ONCE], other[k : k + _AT_ONCE]
        hit = _cross(runs[a], runs[b])
        found |= set(owner[a[hit]].tolist()) | set(owner[b[hit]].tolist())
    return found


def _padded(ring: Ring) -> np.ndarray:
    """The vertices of a ring, its first again at the end, in runs of equal length (runs, _RUN + 1, 2) that overlap."""
    count = -(-len(ring) // _RUN)
    index = np.arange(count)[:, None] * _RUN + np.arange(_RUN + 1)
    return np.concatenate([ring, ring[:1]]).astype(np.float64)[np.minimum(index, len(ring))]


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether an edge of the one run and one of the other cross, for P pairs of runs: (P,) bool."""
    a, b = one[:, :-1, None], one[:, 1:, None]
    c, d = other[:, None, :-1], other[:, None, 1:]
    split_one = _side(a, b, c) * _side(a, b, d) < 0
    split_other = _side(c, d, a) * _side(c, d, b) < 0
    return (split_one & split_other).any((1, 2))


def _side(a: np.ndarray, b: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.sign(
        (b[..., 0] - a[..., 0]) * (p[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (p[..., 0] - a[..., 0])
    )
