"""Where PointRend looks: points of RoIs, what lies there, and which of them matter.

Places inside a RoI are (x, y) in [0, 1], its left upper corner at 0. Shapes: R RoIs, Q points of each.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sharpcontour.masks.packed import PackedMasks
from sharpcontour.sampling import look_up, tall_map


def cell_centres(side: int, index: Tensor) -> Tensor:
    """(..., 2) places of the cells ``index`` (...) int64, row by row, of a grid with ``side`` cells along a side."""
    return torch.stack([index % side + 0.5, index // side + 0.5], -1) / side


def in_image(places: Tensor, boxes: Tensor) -> Tensor:
    """Places (R, Q, 2) inside boxes (R, 4) -> (R, Q, 2) in the boxes' pixels."""
    return boxes[:, None, :2] + places * (boxes[:, None, 2:] - boxes[:, None, :2])


def features_at(fine: Tensor, stride: int, image_index: Tensor, points: Tensor) -> Tensor:
    """Bilinear features of points, fading to zero outside the map as if it were framed by zeros.

    Args:
        fine: (B, C, h, w).
        stride: of the map in network-input pixels.
        image_index: (R,) int64.
        points: (R, Q, 2) in network-input pixels.

    Returns:
        (R, C, Q) float32.
    """
    b, _, h, w = fine.shape
    with torch.autocast(fine.device.type, enabled=False):  # coordinates in half precision would be cells off
        column, row = (points.float() / stride).unbind(-1)
        # Half a cell outside the outermost centres nothing of them is left: what a frame of zeros does to a bilinear
        # value is to scale it.
        inside = _fade(column, w) * _fade(row, h)
        tall = tall_map(fine.float())
        found = look_up(tall, b, image_index, column.clamp(0.5, w - 0.5), row.clamp(0.5, h - 0.5))
        return found * inside[:, None]


def _fade(place: Tensor, cells: int) -> Tensor:
    return torch.minimum(place + 0.5, cells + 0.5 - place).clamp(0, 1)


def values_at(maps: Tensor, places: Tensor) -> Tensor:
    """Bilinear values (R, C, Q) of the RoIs' own maps (R, C, S, S) at places (R, Q, 2); zeros lie outside."""
    if len(maps) == 0:
        return maps.new_zeros(0, maps.shape[1], places.shape[1]) + maps.sum()
    return F.grid_sample(maps, 2 * places[:, :, None] - 1, align_corners=False)[..., 0]


def soft_labels(masks: PackedMasks, index: Tensor, points: Tensor) -> Tensor:
    """Bilinear values (R, Q) in [0, 1] of binary masks at points; zeros lie outside the image.

    Args:
        masks: of the batch.
        index: (R,) int64, the mask of each RoI.
        points: (R, Q, 2) pixels.
    """
    low = (points - 0.5).floor()
    share = points - 0.5 - low
    value = torch.zeros_like(points[..., 0])
    for dx, x in ((0.5, 1 - share[..., 0]), (1.5, share[..., 0])):
        for dy, y in ((0.5, 1 - share[..., 1]), (1.5, share[..., 1])):
            corner = torch.stack([low[..., 0] + dx, low[..., 1] + dy], -1)
            value += x * y * masks.inside(index, corner)
    return value


@torch.no_grad()
def training_points(logits: Tensor, count: int, oversample: int, importance: float) -> Tensor:
    """Places (R, count, 2): the most uncertain of random ones, and other random ones.

    Args:
        logits: (R, 1, S, S) coarse, of the object's class; near 0 they are uncertain. They are interpolated first:
            two cells of opposite signs must be uncertain in between.
        count: points of a RoI.
        oversample: candidates: so many times ``count``.
        importance: share of uncertain ones.
    """
    rois, uncertain = len(logits), int(importance * count)
    candidates = torch.rand(rois, oversample * count, 2, device=logits.device)
    certainty = values_at(logits, candidates)[:, 0].abs()
    best = certainty.topk(uncertain, dim=1, largest=False).indices
    chosen = candidates.gather(1, best[..., None].expand(-1, -1, 2))
    return torch.cat([chosen, torch.rand(rois, count - uncertain, 2, device=logits.device)], 1)
