"""What a loader worker adds to a training target for DeepSnake: extreme points, octagons and where these should go."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.snake.polygons import octagons
from models.snake.targets import extreme_points, largest_ring, sample_boundary, signed_area, usable_objects
from sharpcontour.host import Target


class DeepSnakeTarget(Target, total=False):
    """A training target for DeepSnake: of the S objects in one piece, in network-input pixels."""

    snake_boxes: Tensor  # (S, 4) float32 xyxy
    snake_extremes: Tensor  # (S, 4, 2) float32, top, left, bottom and right point
    snake_start: Tensor  # (S, vertices, 2) float32, the octagon that the branch begins with
    snake_goal: Tensor  # (S, vertices, 2) float32, where its vertices should go


def build_targets(target: Target, rng: np.random.Generator, vertices: int, from_top: bool) -> DeepSnakeTarget:
    """Add the contour branch's targets to one image's target.

    Args:
        target: as the data set makes it; "rings", "boxes" and "polygon_parts" are read.
        rng: not needed; every target builder is called with one.
        vertices: of a contour.
        from_top: see :func:`~models.snake.polygons.octagons`.
    """
    boxes = target["boxes"].double()
    outlines = [_anticlockwise(largest_ring(rings)) for rings in target["rings"]]
    usable = usable_objects(target) & np.array([len(outline) >= 3 for outline in outlines], bool)
    kept = np.flatnonzero(usable)
    boxes = boxes[kept]
    extremes = torch.from_numpy(
        np.array([_extremes(outlines[k], box) for k, box in zip(kept, boxes.numpy(), strict=True)]).reshape(-1, 4, 2)
    )
    start = octagons(extremes, vertices, from_top)
    goal = [sample_boundary(outlines[k], first, vertices) for k, first in zip(kept, start[:, 0].numpy(), strict=True)]
    return {
        **target,
        "snake_boxes": boxes.float(),
        "snake_extremes": extremes.float(),
        "snake_start": start.float(),
        "snake_goal": torch.from_numpy(np.array(goal, np.float32).reshape(-1, vertices, 2)),
    }


def _anticlockwise(outline: np.ndarray) -> np.ndarray:
    """The outline, run anti-clockwise as seen on the screen (y down); without points if it encloses no area."""
    area = signed_area(outline) if len(outline) >= 3 else 0.0
    return outline[:0] if area == 0 else outline if area < 0 else outline[::-1]


def _extremes(outline: np.ndarray, box: np.ndarray) -> list[tuple[float, float]]:
    top, left, bottom, right = extreme_points(outline, box)
    x0, y0, x1, y1 = box
    return [(top, y0), (x0, left), (bottom, y1), (x1, right)]
