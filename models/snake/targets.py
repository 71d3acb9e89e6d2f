"""What contour models learn from an object's outline: even samples of it, and its extreme points.

Part of what loader workers do, in numpy.
"""

from __future__ import annotations

import numpy as np
import torch

from models.snake.polygons import divide_edges
from sharpcontour.contours.types import Rings
from sharpcontour.host import Target

TOLERANCE = 0.02  # of width or height: within it a boundary counts as touching the box


def signed_area(polygon: np.ndarray) -> float:
    """Shoelace area of a polygon (K, 2); negative where it runs anti-clockwise as seen on the screen (y down)."""
    x, y = polygon[:, 0], polygon[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def largest_ring(rings: Rings) -> np.ndarray:
    """The object's largest ring. Traced masks come with specks and holes, so the order of rings means nothing."""
    if not rings:
        return np.zeros((0, 2))
    return max((np.asarray(ring, np.float64) for ring in rings), key=lambda ring: abs(signed_area(ring)))


def usable_objects(target: Target) -> np.ndarray:
    """The objects that a contour is learned from, (G,) bool: of one part, in a box of at least a pixel each way."""
    sides = target["boxes"][:, 2:].double() - target["boxes"][:, :2].double()
    single = torch.as_tensor(target["polygon_parts"]).numpy() == 1
    # Losses are relative to the box: on one thinner than a pixel they would only measure annotation noise.
    usable: np.ndarray = single & (sides >= 1).all(1).numpy()
    return usable


def nearest(points: np.ndarray, place: np.ndarray) -> int:
    """Index of the point (K, 2) nearest to a place."""
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
    edge = nearest(candidate, near)
    sample = (begin[edge] + int(closest[edge]) + np.arange(count) * k) % (k * count)
    edges = np.searchsorted(end, sample, side="right")
    return polygon[edges] + ((sample - begin[edges]) / parts[edges])[:, None] * ahead[edges]


def run_along(depth: np.ndarray, start: int, tolerance: float) -> np.ndarray:
    """Indices of the samples around ``start``, without a gap, whose depth is within ``tolerance`` of its; cyclic."""
    n = len(depth)
    near = np.roll(np.abs(depth - depth[start]) <= tolerance, -start)
    if near.all():
        return np.arange(n)
    forward, backward = int(near.argmin()), int(near[::-1].argmin())
    return (start + np.arange(-backward, forward)) % n


def box_sides(points: np.ndarray) -> list[tuple[int, float, np.ndarray, float]]:
    """Top, bottom, left, right: axis along the side, its coordinate, depth of every point behind it, tolerance."""
    low, high = points.min(0), points.max(0)
    width, height = (high - low + 1) * TOLERANCE
    return [
        (0, low[1], points[:, 1] - low[1], height),
        (0, high[1], high[1] - points[:, 1], height),
        (1, low[0], points[:, 0] - low[0], width),
        (1, high[0], high[0] - points[:, 0], width),
    ]


def extreme_points(polygon: np.ndarray, box: np.ndarray) -> tuple[float, float, float, float]:
    """x of the top, y of the left, x of the bottom, y of the right extreme point of (K, 2); of none: the middle."""
    if len(polygon) == 0:
        x, y = (box[:2] + box[2:]) / 2
        return x, y, x, y
    middle = []
    for axis, _, depth, tolerance in box_sides(polygon):
        along = polygon[run_along(depth, int(np.argmin(depth)), tolerance), axis]
        middle.append((along.min() + along.max()) / 2)
    top, bottom, left, right = middle
    return top, left, bottom, right
