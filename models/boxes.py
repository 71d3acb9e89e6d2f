"""Boxes (K, 4) xyxy in continuous pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def image_limits(sizes: list[tuple[int, int]], device: torch.device) -> Tensor:
    """(height, width) of B images -> (B, 4): width, height, width, height."""
    limits = torch.tensor([[w, h, w, h] for h, w in sizes], dtype=torch.float32)
    return limits.to(device, non_blocking=True)


def clip_boxes(boxes: Tensor, limits: Tensor) -> Tensor:
    """Cut boxes at the border of their image; ``limits`` (K, 4) as from :func:`image_limits`."""
    return boxes.clamp(min=0).minimum(limits)


def indexed_boxes(boxes: Tensor, index: Tensor) -> Tensor:
    """Boxes (R, 4) and the map of each (R,) as RoIAlign wants them: (R, 5)."""
    return torch.cat([index[:, None].to(boxes.dtype), boxes], 1)


def counts_of(index: Tensor, groups: int) -> list[int]:
    """How often each of 0, ..., ``groups`` - 1 is in ``index`` (R,); waits for the device once, bincount does twice."""
    counts: list[int] = (index == torch.arange(groups, device=index.device)[:, None]).sum(1).tolist()
    return counts


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """(K,) IoU of box k of ``a`` with box k of ``b``; 0 where both are empty."""
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    union = (a[:, 2:] - a[:, :2]).clamp(min=0).prod(1) + (b[:, 2:] - b[:, :2]).clamp(min=0).prod(1) - overlap
    return overlap / union.clamp(min=1e-6)


def jitter_boxes(boxes: Tensor, amount: float) -> Tensor:
    """Move every side by a uniform random share, at most ``amount``, of the box's width or height."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + (torch.rand_like(boxes) * 2 - 1) * amount * sides
