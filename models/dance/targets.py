"""What a loader worker adds to a training target for DANCE: contours with their goals, extreme points, the edge map.

Segment-wise matching: the object's boundary is cut at its characteristic points (where it touches the box), the
rectangle at the vertices nearest to them, and each piece of the rectangle is paired with evenly spaced points along its
piece of the boundary.

Shapes: a boundary of K vertices, D = FACTOR * vertices samples of it.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from models.fcos.targets import ExtremesTarget
from models.snake.polygons import rectangles
from models.snake.targets import (
    box_sides,
    extreme_points,
    largest_ring,
    nearest,
    run_along,
    sample_boundary,
    signed_area,
    usable_objects,
)
from sharpcontour.host import Target
from sharpcontour.masks.packed import PackedMasks

FACTOR = 5  # boundary samples for one contour vertex


class DanceTarget(ExtremesTarget, total=False):
    """A training target for DANCE: all in network-input pixels, of the S objects in one piece unless it says K."""

    snake_start: Tensor  # (S, vertices, 2) float32, the contour that the branch begins with
    snake_goal: Tensor  # (S, vertices, 2) float32, where its vertices should go
    snake_sides: Tensor  # (S, 2) float32, width and height of the boxes
    edges: Tensor  # (H, W) uint8, 1 on the outline of an object


def build_targets(target: Target, rng: np.random.Generator, vertices: int) -> DanceTarget:
    """Add the contour branch's targets to one image's target.

    Args:
        target: as the data set makes it; "rings", "boxes", "masks", "polygon_parts" and "size" are read.
        rng: not needed; every target builder is called with one.
        vertices: of a contour.
    """
    height, width = target["size"]
    outlines = [largest_ring(rings) for rings in target["rings"]]
    boxes = target["boxes"].double()
    sides = boxes[:, 2:] - boxes[:, :2]
    usable = usable_objects(target)
    starts = rectangles(boxes, vertices).numpy()
    matched = [
        (k, pair)
        for k in np.flatnonzero(usable)
        if len(outlines[k]) >= 3 and (pair := match(outlines[k], starts[k])) is not None
    ]
    kept = [k for k, _ in matched]
    start, goal = (np.array([pair[i] for _, pair in matched], np.float32).reshape(-1, vertices, 2) for i in (0, 1))
    np.clip(goal, 0, np.array([width - 1, height - 1], np.float32), out=goal)
    extremes = [extreme_points(outline, box) for outline, box in zip(outlines, boxes.numpy(), strict=True)]
    return {
        **target,
        "snake_start": torch.from_numpy(start),
        "snake_goal": torch.from_numpy(goal),
        "snake_sides": sides[torch.tensor(kept, dtype=torch.int64)].float(),
        "extremes": torch.from_numpy(np.array(extremes, np.float32).reshape(-1, 4)),
        "edges": torch.from_numpy(edge_map(target["masks"], height, width)),
    }


def match(polygon: np.ndarray, rectangle: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Pair the vertices of a box's rectangle with points of the object's boundary.

    Args:
        polygon: (K, 2), in either direction.
        rectangle: (V, 2) as from :func:`~models.snake.polygons.rectangles`.

    Returns:
        (V, 2) rectangle, rotated to its best beginning, and (V, 2) goals, vertex by vertex; None for a polygon
        without an area.
    """
    area = signed_area(polygon)
    if area == 0:
        return None
    boundary = sample_boundary(polygon if area < 0 else polygon[::-1], rectangle[0], FACTOR * len(rectangle))
    boundary, cuts = characteristic_points(boundary)
    rectangle = np.roll(rectangle, -nearest(rectangle, boundary[0]), axis=0)
    return rectangle, match_segments(boundary, rectangle, cuts)


def characteristic_points(boundary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the boundary (D, 2) touches its box: once on every side at least, more often where it touches in pieces.

    Returns:
        The boundary, rotated to begin at the first topmost piece, and the ascending indices of the points, 0 first.
    """
    points = []
    for axis, side, depth, tolerance in box_sides(boundary):
        band = depth <= tolerance
        while band.any():
            candidates = band.nonzero()[0]
            run = run_along(depth, int(candidates[np.argmin(depth[candidates])]), tolerance)
            along = boundary[run, axis]
            middle = (along.min() + along.max()) / 2
            points.append((middle, side) if axis == 0 else (side, middle))
            band[run] = False
    places = np.array(points)
    boundary = np.roll(boundary, -nearest(boundary, places[0]), axis=0)
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


def edge_map(masks: PackedMasks, height: int, width: int) -> np.ndarray:
    """(height, width) uint8: 1 on the outermost pixels of every object, holes left out.

    The published model draws the segments of COCO's panoptic annotation. The instances' own masks need no second set of
    files, follow every augmentation, and exist for any data set; they differ in crowds and where objects overlap.
    """
    edges = np.zeros((height, width), np.uint8)
    for k, (x0, y0, w, h) in enumerate(masks.crops.tolist()):
        if w == 0 or h == 0:
            continue
        for chain in cv2.findContours(masks.crop(k).numpy(), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
            edges[chain[:, 0, 1] + y0, chain[:, 0, 0] + x0] = 1
    return edges
