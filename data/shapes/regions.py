"""Polygons as regions of the plane: exact masks, coverage of pixels, and one polygon minus others.

A region is a list of rings, (n, 2) float64: outer ones with positive shoelace area, holes with negative, none crossing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Region = list[np.ndarray]

SUBROWS = 5  # scan lines in a row of pixels; odd, so that one runs through the pixel centres
SLIVER = 0.25  # px^2: smaller rings of a visible part are dropped, nobody could see them
FAR = 1e5  # px, beyond every object


def signed_area(ring: np.ndarray) -> float:
    """Shoelace area of a ring (n, 2); positive for outer rings."""
    x, y = ring[:, 0], ring[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def rasterise(region: Region, x0: int, y0: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Scan a region on a window of the image.

    Along every scan line the crossings of the outline are exact, so the coverage is exact in x and sampled by
    ``SUBROWS`` lines in y; the mask holds the pixels whose centre lies in the region.

    Args:
        region: in image pixels.
        x0, y0, width, height: the window, whole pixels.

    Returns:
        coverage (height, width) float32 in [0, 1] and mask (height, width) bool.
    """
    line, x, sign = _crossings(region)
    line = line - y0 * SUBROWS
    seen = (line >= 0) & (line < height * SUBROWS)
    line, x, sign = line[seen], np.clip(x[seen] - x0, 0, width), sign[seen]
    stride = width + 2
    row = line // SUBROWS
    column = x.astype(np.int64)
    part = x - column
    at = row * stride + column
    weights = np.concatenate([sign * (1 - part), sign * part]) / SUBROWS
    steps = np.bincount(np.concatenate([at, at + 1]), weights, minlength=height * stride)
    coverage = np.abs(np.cumsum(steps.reshape(height, stride)[:, :width], axis=1)).clip(0, 1).astype(np.float32)
    middle = line % SUBROWS == SUBROWS // 2
    at = row[middle] * stride + np.ceil(x[middle] - 0.5).astype(np.int64)
    steps = np.bincount(at, sign[middle], minlength=height * stride)
    mask = np.abs(np.cumsum(steps.reshape(height, stride)[:, :width], axis=1)) > 0.5
    return coverage, mask


def _crossings(region: Region) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the outline crosses scan lines: number of the line (its y is (line + 0.5) / SUBROWS), x, direction."""
    begin = np.concatenate(region)
    end = np.concatenate([np.roll(ring, -1, 0) for ring in region])
    first, last = (np.ceil(p[:, 1] * SUBROWS - 0.5).astype(np.int64) for p in (begin, end))
    count = np.abs(last - first)
    edge = np.repeat(np.arange(len(begin)), count)
    line = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + np.minimum(first, last)[edge]
    run = end - begin
    slope = run[:, 0] / np.where(count == 0, 1.0, run[:, 1])
    x = begin[edge, 0] + ((line + 0.5) / SUBROWS - begin[edge, 1]) * slope[edge]
    return line, x, np.sign(last - first)[edge].astype(np.float64)


def contains(region: Region, points: np.ndarray) -> np.ndarray:
    """Whether (P, 2) points lie in a region, by the parity of the edges to their right."""
    begin = np.concatenate(region)
    end = np.concatenate([np.roll(ring, -1, 0) for ring in region])
    x, y = points[:, :1], points[:, 1:]
    spans = (begin[:, 1] > y) != (end[:, 1] > y)
    height = end[:, 1] - begin[:, 1]
    at = begin[:, 0] + (y - begin[:, 1]) * ((end[:, 0] - begin[:, 0]) / np.where(height == 0, 1.0, height))
    return ((spans & (x < at)).sum(1) % 2).astype(bool)


def outside_of(width: float, height: float) -> Region:
    """Everything that an image does not show, as a region."""
    window = np.array([[0, 0], [0, height], [width, height], [width, 0]], np.float64)
    return [np.array([[-FAR, -FAR], [FAR, -FAR], [FAR, FAR], [-FAR, FAR]]), window]


def subtract(region: Region, occluders: Sequence[Region]) -> Region | None:
    """``region`` without what the occluders hide, as exact polygons.

    The outline of the difference consists of the pieces of the region's outline outside all occluders and of the
    pieces of an occluder's outline inside the region and outside the other occluders. Edges are cut where they meet,
    the pieces are kept or dropped, and linked end to end.

    Returns:
        Rings without slivers, or None if rounding errors have left pieces that do not link up.
    """
    solids = [region, *occluders]
    rings = [ring for solid in solids for ring in solid]
    owner = np.repeat(np.arange(len(solids)), [sum(map(len, solid)) for solid in solids])
    starts = np.concatenate([[0], np.cumsum([len(ring) for ring in rings])])
    following = np.arange(1, starts[-1] + 1)
    following[starts[1:] - 1] = starts[:-1]
    vertices = np.concatenate(rings)
    edge, part, node_points = _intersections(vertices, following, owner)

    # Entries: the vertices (at the start of their edges) and, twice each, the nodes; sorted along the rings.
    count = len(vertices)
    nodes = np.tile(np.arange(len(node_points)) + count, 2)
    entry_edge = np.concatenate([np.arange(count), edge])
    order = np.lexsort((np.concatenate([np.zeros(count), part]), entry_edge))
    entry_edge = entry_edge[order]
    point = np.concatenate([np.arange(count), nodes])[order]
    places = np.concatenate([vertices, node_points])
    last = np.append(entry_edge[1:] != entry_edge[:-1], True)
    target = np.where(last, following[entry_edge], np.append(point[1:], 0))
    ring_of = np.searchsorted(starts, entry_edge, side="right") - 1
    keep = _kept(solids, owner[entry_edge], ring_of, point >= count, (places[point] + places[target]) / 2)
    reverse = owner[entry_edge] > 0
    tails, heads = np.where(reverse, target, point)[keep], np.where(reverse, point, target)[keep]
    linked = _link(tails.tolist(), heads.tolist())
    if linked is None:
        return None
    found = [places[ids] for ids in linked]
    return [ring for ring in found if len(ring) >= 3 and abs(signed_area(ring)) >= SLIVER]


def _intersections(
    vertices: np.ndarray, following: np.ndarray, owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where edges of two solids meet: first edges, then second ones, and the places on them (2 M,); points (M, 2)."""
    begin, end = vertices, vertices[following]
    low, high = np.minimum(begin, end).astype(np.float32), np.maximum(begin, end).astype(np.float32)
    low -= 1e-3
    high += 1e-3
    near = owner[:, None] < owner[None]
    for axis in (0, 1):
        near &= low[:, None, axis] <= high[None, :, axis]
        near &= high[:, None, axis] >= low[None, :, axis]
    i, j = np.nonzero(near)
    di, dj, gap = end[i] - begin[i], end[j] - begin[j], begin[j] - begin[i]
    cross = di[:, 0] * dj[:, 1] - di[:, 1] * dj[:, 0]
    cross = np.where(cross == 0, np.inf, cross)
    at_i = (gap[:, 0] * dj[:, 1] - gap[:, 1] * dj[:, 0]) / cross
    at_j = (gap[:, 0] * di[:, 1] - gap[:, 1] * di[:, 0]) / cross
    meet = (at_i > 0) & (at_i < 1) & (at_j > 0) & (at_j < 1) & np.isfinite(cross)
    i, j, at_i, at_j = i[meet], j[meet], at_i[meet], at_j[meet]
    return np.concatenate([i, j]), np.concatenate([at_i, at_j]), begin[i] + at_i[:, None] * di[meet]


def _kept(
    solids: Sequence[Region], owner: np.ndarray, ring_of: np.ndarray, is_node: np.ndarray, middle: np.ndarray
) -> np.ndarray:
    """Which pieces belong to the difference. Along a ring this changes at nodes only, so few points are tested."""
    entries = np.arange(len(owner))
    first = np.append(True, ring_of[1:] != ring_of[:-1])
    segment_start = np.maximum.accumulate(np.where(first, entries, 0))
    segment_end = np.append(entries[first][1:], len(owner))[ring_of] - 1
    has_node = np.bincount(ring_of, is_node) > 0
    probe = is_node | (first & ~has_node[ring_of])
    source = np.maximum.accumulate(np.where(probe, entries, -1))
    source = np.where(source < segment_start, source[segment_end], source)
    tested = np.flatnonzero(probe)
    keep = np.ones(len(tested), bool)
    for k, solid in enumerate(solids):
        others = np.flatnonzero(owner[tested] != k)
        inside = contains(solid, middle[tested[others]])
        keep[others] &= inside if k == 0 else ~inside
    verdict = np.zeros(len(owner), bool)
    verdict[tested] = keep
    return verdict[source]


def _link(tails: list[int], heads: list[int]) -> list[list[int]] | None:
    """Closed chains of directed pieces; None unless every point has one piece in and one out."""
    after = dict(zip(tails, heads, strict=True))
    if len(after) != len(tails) or set(after) != set(heads):
        return None
    chains = []
    while after:
        first, point = after.popitem()
        chain = [first]
        while point != first:
            chain.append(point)
            point = after.pop(point)
        chains.append(chain)
    return chains
