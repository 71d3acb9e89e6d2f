"""Boxes as moves of other boxes (R-CNN): centre shifts in widths and heights, logarithms of the size ratios.

dx = wx (gx - ax) / aw, dw = ww log(gw / aw), likewise dy and dh; weights w make the targets about as large as 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Weights = tuple[float, float, float, float]
MAX_LOG = math.log(1000 / 16)  # of the size ratio: keeps exp finite; the value all R-CNNs use


def encode(boxes: Tensor, anchors: Tensor, weights: Weights = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Deltas (K, 4) that move ``anchors`` (K, 4) to ``boxes`` (K, 4), both xyxy."""
    size, centre = _sizes_and_centres(anchors)
    wanted, to = _sizes_and_centres(boxes)
    scale = boxes.new_tensor(weights)
    return torch.cat([scale[:2] * (to - centre) / size, scale[2:] * (wanted / size).log()], 1)


def decode(deltas: Tensor, anchors: Tensor, weights: Weights = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The boxes (..., 4) that deltas (..., 4) make of ``anchors``, which must broadcast; always float32."""
    deltas, anchors = deltas.float(), anchors.float()
    size, centre = _sizes_and_centres(anchors)
    moved = deltas / deltas.new_tensor(weights)
    to = moved[..., :2] * size + centre
    half = 0.5 * (moved[..., 2:].clamp(max=MAX_LOG).exp() * size)
    return torch.cat([to - half, to + half], -1)


def _sizes_and_centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return size, boxes[..., :2] + 0.5 * size
