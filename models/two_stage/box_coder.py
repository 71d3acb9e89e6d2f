"""Boxes as moves of other boxes (R-CNN): centre shifts in widths and heights, logarithms of the size ratios.

dx = wx (gx - ax) / aw and dw = ww log(gw / aw), and so along y for dy and dh; the weights w make the targets about as
large as 1.
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
    # Columns one by one: a tensor of the weights would have to be copied to the device.
    moves = torch.stack([move * weight for move, weight in zip((to - centre).unbind(1), weights[:2], strict=True)], 1)
    logs = (wanted / size).log().unbind(1)
    return torch.cat([moves / size, torch.stack([x * w for x, w in zip(logs, weights[2:], strict=True)], 1)], 1)


def decode(deltas: Tensor, anchors: Tensor, weights: Weights = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The boxes (..., 4) that deltas (..., 4) make of ``anchors``, which must broadcast; always float32."""
    deltas, anchors = deltas.float(), anchors.float()
    size, centre = _sizes_and_centres(anchors)
    moved = torch.stack([delta / weight for delta, weight in zip(deltas.unbind(-1), weights, strict=True)], -1)
    to = moved[..., :2] * size + centre
    half = 0.5 * (moved[..., 2:].clamp(max=MAX_LOG).exp() * size)
    return torch.cat([to - half, to + half], -1)


def _sizes_and_centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return size, boxes[..., :2] + 0.5 * size
