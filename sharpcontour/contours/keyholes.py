"""Several rings as one polygon and back, for files that know no holes.

A bridge is an edge that is walked twice, there and back. It encloses nothing, so the polygon has by the even-odd rule
exactly the pixels of its rings. This is how such files usually hold a hole, then called a keyhole, and how Ultralytics
joins the parts of an object (``merge_multi_segment`` in ``ultralytics/data/converter.py``).
"""

from __future__ import annotations

import numpy as np

from sharpcontour.contours.types import Ring, Rings


def joined(rings: Rings) -> Ring:
    """One polygon (n, 2) of one or more rings: from left to right, each by a bridge from its leftmost vertex.

    The bridge goes to the nearest vertex of what is joined already, whose coordinates are repeated exactly.
    """
    rings = sorted(rings, key=lambda ring: float(ring[:, 0].min()))
    count = sum(map(len, rings)) + 2 * (len(rings) - 1)
    points = np.empty((2, count), rings[0].dtype)
    following = np.arange(1, count + 1)
    points[:, : len(rings[0])] = rings[0].T
    end = len(rings[0])
    following[end - 1] = 0
    for ring in rings[1:]:
        begin = int(ring[:, 0].argmin())
        x, y = points[0, :end] - ring[begin, 0], points[1, :end] - ring[begin, 1]
        distances = x * x + y * y
        # Between rings that touch a bridge would have no length, and nothing could tell it from a vertex.
        distances[distances == 0] = np.inf
        place = int(distances.argmin())
        points[:, end : end + len(ring)] = np.roll(ring, -begin, 0).T
        points[:, end + len(ring)] = ring[begin]
        points[:, end + len(ring) + 1] = points[:, place]
        following[end + len(ring) + 1] = following[place]
        following[place] = end
        end += len(ring) + 2
    way = [0]
    steps = following.tolist()
    while steps[way[-1]] != 0:
        way.append(steps[way[-1]])
    return points.T[way]


def opened(polygon: Ring) -> Rings:
    """The rings (n, 2) of a polygon that bridges join, each edge that is walked there and back taken out.

    Returns:
        The polygon itself, alone, where it has no such edge.
    """
    count = len(polygon)
    # Equal points have equal numbers. -0.0 and 0.0 are one point, but not to np.unique of rows.
    _, names = np.unique(polygon + 0.0, axis=0, return_inverse=True)
    points = names.ravel().tolist()
    following = [*range(1, count), 0]
    waiting: dict[tuple[int, int], list[int]] = {}
    bridges = 0
    for i in range(count):
        here, there = points[i], points[following[i]]
        if here == there:
            continue
        if waiting.get((there, here)):
            j = waiting[there, here].pop()
            following[i], following[j] = following[j], following[i]
            bridges += 1
        else:
            waiting.setdefault((here, there), []).append(i)
    if not bridges:
        return [polygon]
    return [ring for ring in _cycles(polygon, points, following) if len(ring) >= 3]


def has_bridges(polygon: Ring) -> bool:
    """Whether a polygon (n, 2) has an edge that is walked there and back, so that :func:`opened` opens it."""
    if len(np.unique(polygon, axis=0)) == len(polygon):
        return False  # nearly always
    rings = opened(polygon)
    return len(rings) != 1 or len(rings[0]) != len(polygon)


def _cycles(polygon: Ring, points: list[int], following: list[int]) -> Rings:
    """The rings that ``following`` goes around, without points that repeat the one before."""
    seen = [False] * len(points)
    rings: Rings = []
    for begin in range(len(points)):
        way: list[int] = []
        i = begin
        while not seen[i]:
            seen[i] = True
            if not way or points[way[-1]] != points[i]:
                way.append(i)
            i = following[i]
        if len(way) > 1 and points[way[0]] == points[way[-1]]:
            way.pop()
        rings.append(polygon[way])
    return rings
