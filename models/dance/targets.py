"""What a loader worker adds to a training target for DANCE: contours with their goals, extreme points, the edge map.

Segment-wise matching: the object's boundary is cut at its characteristic points (where it touches the box), the
rectangle at the vertices nearest to them, and each piece of the rectangle is paired with evenly spaced points along its
piece of the boundary.

Shapes: a boundary of K vertices, D = FACTOR * vertices samples of it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch

from models.dance.contours import divide_edges, rectangles
from sharpcontour.interface import Rings
from sharpcontour.masks import PackedMasks

FACTOR = 5  # boundary samples for one contour vertex
TOLERANCE = 0.02  # of width or height: within it a boundary counts as touching the box


def build_targets(target: dict[str, Any], rng: np.random.Generator, vertices: int) -> dict[str, Any]:
    """Add the contour branch's targets to one image's target, all in network-input pixels.

    Added tensors, for the S objects in one piece: "snake_start" and "snake_goal" (S, vertices, 2), "snake_sides" (S, 2)
    width and height of the boxes. For all K: "extremes" (K, 4), x of the top, y of the left, x of the bottom, y of the
    right extreme point. "edges" (H, W) uint8: 1 on the outline of an object.

    Args:
        target: as the data set makes it; "rings", "boxes", "masks", "polygon_parts" and "size" are read.
        rng: not needed; every target builder is called with one.
        vertices: of a contour.
    """
    height, width = target["size"]
    outlines = [_largest(rings) for rings in target["rings"]]
    boxes = target["boxes"].double()
    sides = boxes[:, 2:] - boxes[:, :2]
    single = torch.as_tensor(target["polygon_parts"]).numpy() == 1
    # Losses are relative to the box: on one thinner than a pixel they would only measure annotation noise.
    usable = single & (sides >= 1).all(1).numpy()
    starts = rectangles(boxes, vertices).numpy()
    matched = [
        (k, pair)
        for k in np.flatnonzero(usable)
        if len(outlines[k]) >= 3 and (pair := match(outlines[k], starts[k])) is not None
    ]
    kept = [k for k, _ in matched]
    start, goal = (np.array([pair[i] for _, pair in matched], np.float32).reshape(-1, vertices, 2) for i in (0, 1))
    goal = goal.clip(0, np.array([width - 1, height - 1], np.float32))
    extremes = [extreme_points(outline, box) for outline, box in zip(outlines, boxes.numpy(), strict=True)]
    return {
        **target,
        "snake_start": torch.from_numpy(start),
        "snake_goal": torch.from_numpy(goal),
        "snake_sides": sides[kept].float(),
        "extremes": torch.from_numpy(np.array(extremes, np.float32).reshape(-1, 4)),
        "edges": torch.from_numpy(edge_map(target["masks"], height, width)),
    }


def signed_area(polygon: np.ndarray) -> float:
    """Shoelace area of (K, 2); negative where the vertices run anti-clockwise as seen on the screen (y down)."""
    x, y = polygon[:, 0], polygon[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _largest(rings: Rings) -> np.ndarray:
    """The object's main outline. Traced masks come with specks and holes, so the order of rings means nothing."""
    if not rings:
        return np.zeros((0, 2))
    return max((np.asarray(ring, np.float64) for ring in rings), key=lambda ring: abs(signed_area(ring)))


def match(polygon: np.ndarray, rectangle: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Pair the vertices of a box's rectangle with points of the object's boundary.

    Args:
        polygon: (K, 2), in either direction.
        rectangle: (V, 2) as from :func:`~models.dance.contours.rectangles`.

    Returns:
        (V, 2) rectangle, rotated to its best beginning, and (V, 2) goals, vertex by vertex; None for a polygon
        without an area.
    """
    area = signed_area(polygon)
    if area == 0:
        return None
    boundary = sample_boundary(polygon if area < 0 else polygon[::-1], rectangle[0], FACTOR * len(rectangle))
    boundary, cuts = characteristic_points(boundary)
    rectangle = np.roll(rectangle, -_nearest(rectangle, boundary[0]), axis=0)
    return rectangle, match_segments(boundary, rectangle, cuts)


def _nearest(points: np.ndarray, place: np.ndarray) -> int:
    return int(((points - place) ** 2).sum(1).argmin())


def sample_boundary(polygon: np.ndarray, near: np.ndarray, count: int) -> np.ndarray:
    """(count, 2) points along a closed polygon (K, 2), beginning next to ``near``.

    They are every K-th of K * count samples that divide each edge evenly, so all of them need not be made.
    """
    k = len(polygon)
    ahead = np.roll(polygon, -1, axis=0) - polygon
    squared = (ahead**2).sum(1)
    parts = divide_edges(torch.from_numpy(np.sqrt(squared))[None], k * count)[0].numpy()
    end = parts.cumsum()
    begin = end - parts
    # On each edge, the sample nearest to the wanted beginning is the one nearest to its projection.
    along = ((near - polygon) * ahead).sum(1) / np.maximum(squared, 1e-12)
    closest = np.rint(along * parts).clip(0, parts - 1)
    candidate = polygon + (closest / parts)[:, None] * ahead
    edge = _nearest(candidate, near)
    sample = (begin[edge] + int(closest[edge]) + np.arange(count) * k) % (k * count)
    edges = np.searchsorted(end, sample, side="right")
    return polygon[edges] + ((sample - begin[edges]) / parts[edges])[:, None] * ahead[edges]


def _run(depth: np.ndarray, start: int, tolerance: float) -> np.ndarray:
    """Indices of the samples around ``start``, without a gap, whose depth is within ``tolerance`` of its; cyclic."""
    n = len(depth)
    near = np.roll(np.abs(depth - depth[start]) <= tolerance, -start)
    if near.all():
        return np.arange(n)
    forward, backward = int(near.argmin()), int(near[::-1].argmin())
    return (start + np.arange(-backward, forward)) % n


def _sides(points: np.ndarray) -> list[tuple[int, float, np.ndarray, float]]:
    """Top, bottom, left, right: axis along the side, its coordinate, depth of every point behind it, tolerance."""
    low, high = points.min(0), points.max(0)
    width, height = (high - low + 1) * TOLERANCE
    return [
        (0, low[1], points[:, 1] - low[1], height),
        (0, high[1], high[1] - points[:, 1], height),
        (1, low[0], points[:, 0] - low[0], width),
        (1, high[0], high[0] - points[:, 0], width),
    ]


def characteristic_points(boundary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the boundary (D, 2) touches its box: once on every side at least, more often where it touches in pieces.

    Returns:
        The boundary, rotated to begin at the first topmost piece, and the ascending indices of the points, 0 first.
    """
    points = []
    for axis, side, depth, tolerance in _sides(boundary):
        band = depth <= tolerance
        while band.any():
            candidates = band.nonzero()[0]
            run = _run(depth, candidates[depth[candidates].argmin()], tolerance)
            along = boundary[run, axis]
            middle = (along.min() + along.max()) / 2
            points.append((middle, side) if axis == 0 else (side, middle))
            band[run] = False
    places = np.array(points)
    boundary = np.roll(boundary, -_nearest(boundary, places[0]), axis=0)
    index = ((boundary[None] - places[:, None]) ** 2).sum(2).argmin(1)
    index[0] = 0
    return boundary, np.unique(index)


def match_segments(boundary: np.ndarray, rectangle: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Goals (V, 2) of the rectangle's vertices: piece by piece, evenly along the boundary between two cuts.

    Args:
        boundary: (D, 2), D = FACTOR * V.
        rectangle: (V, 2), begins next to ``boundary[0]``.
        cuts: ascending indices into ``boundary``, 0 first.
    """
    d, v = len(boundary), len(rectangle)
    corner = ((rectangle[None] - boundary[cuts][:, None]) ** 2).sum(2).argmin(1)
    corner[0] = 0
    if len(corner) > 1 and corner[-1] < corner[1]:
        corner[-1] = v - 2  # the last point lies just before the first, and met a vertex behind the beginning
    corner = np.append(np.sort(corner), v)
    cut = np.append(cuts, d)
    if cut[-2] == d - 1:
        cut[-2] = d - 3  # keeps the last piece from being a point
    length = np.hypot(*(np.roll(boundary, -1, axis=0) - boundary).T)
    travelled = np.concatenate([[0.0], length.cumsum()])
    where = []
    for i, count in enumerate(np.diff(corner)):
        if count == 0:
            continue
        last = i == len(corner) - 2
        begin, finish = cut[i], d if last else max(cut[i + 1], cut[i] + 1)
        cut[i + 1] = finish
        if finish - begin == count:
            where.append(travelled[begin:finish])
        else:
            share = np.arange(count) / count
            where.append(travelled[begin] + share * (travelled[finish] - travelled[begin]))
    closed = np.concatenate([boundary, boundary[:1]])
    place = np.concatenate(where)
    return np.stack([np.interp(place, travelled, closed[:, axis]) for axis in (0, 1)], 1)


def extreme_points(polygon: np.ndarray, box: np.ndarray) -> tuple[float, float, float, float]:
    """x of the top, y of the left, x of the bottom, y of the right extreme point of (K, 2); of none: the middle."""
    if len(polygon) == 0:
        x, y = (box[:2] + box[2:]) / 2
        return x, y, x, y
    middle = []
    for axis, _, depth, tolerance in _sides(polygon):
        along = polygon[_run(depth, int(depth.argmin()), tolerance), axis]
        middle.append((along.min() + along.max()) / 2)
    top, bottom, left, right = middle
    return top, left, bottom, right


def edge_map(masks: PackedMasks, height: int, width: int) -> np.ndarray:
    """(height, width) uint8: 1 on the outermost pixels of every object, holes left out.

    The published model draws the segments of COCO's panoptic annotation. The instances' own masks need no second set of
    files, follow every augmentation, and exist for any data set; they differ in crowds and where objects overlap.
    """
    edges = np.zeros((height, width), np.uint8)
    pixels = masks.pixels.numpy()
    for offset, (x0, y0, w, h) in zip(masks.offsets.tolist(), masks.crops.tolist(), strict=True):
        if w == 0 or h == 0:
            continue
        crop = pixels[offset : offset + w * h].reshape(h, w)
        for chain in cv2.findContours(crop, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
            edges[chain[:, 0, 1] + y0, chain[:, 0, 0] + x0] = 1
    return edges
