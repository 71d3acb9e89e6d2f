"""Bilinear look-up at points of any image of a batch (section 3.2, the fine-grained feature).

Paper silent: it extracts the feature "for each vertex", which lies between the cells of the map. Bilinear look-up is
what Mask R-CNN's pooling and PointRend do.

Shapes: K instances (or rings), Q points of each, B images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_features(fine: Tensor, stride: float, image_index: Tensor, points: Tensor) -> Tensor:
    """Fine-grained features of points on any image of the batch: one bilinear look-up for all.

    Cell j of the map has its centre at stride * (j + 0.5) pixels (grid_sample's align_corners=False); beyond the outer
    centres the border value holds.

    Args:
        fine: (B, C, h, w).
        stride: of the map in network-input pixels.
        image_index: (K,) int64.
        points: (K, Q, 2) x, y in network-input pixels.

    Returns:
        (K, C, Q).
    """
    b, _, h, w = fine.shape
    column, row = (points / stride).unbind(-1)
    return look_up(tall_map(fine), b, image_index, column.clamp(0.5, w - 0.5), row.clamp(0.5, h - 0.5))


def tall_map(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (1, C, B h, w): the images one below the other, so that one look-up serves points of all."""
    b, c, h, w = maps.shape
    return maps.transpose(0, 1).reshape(1, c, b * h, w)


def look_up(tall: Tensor, images: int, image_index: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Bilinear values (K, C, Q) of a :func:`tall_map` of ``images`` images at K x Q places.

    Args:
        tall: (1, C, B h, w).
        images: B.
        image_index: (K,) int64.
        column, row: (K, Q) in cells of one image's map, the first cell's centre at 0.5. They must lie between the
            outermost cell centres; so no look-up reaches into the next image.
    """
    height, width = tall.shape[2], tall.shape[3]
    row = row + (image_index * (height // images))[:, None]
    # Columns and rows each in one piece of memory: reading and writing every other number takes longer than the rest.
    grid = torch.stack([column * (2 / width) - 1, row * (2 / height) - 1]).movedim(0, -1)
    sampled = F.grid_sample(tall, grid[None].to(tall.dtype), align_corners=False)  # MPS knows no border before 2.13
    return sampled[0].transpose(0, 1)
