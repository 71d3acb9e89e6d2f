"""Anchors of the region proposal network: boxes of several shapes around every cell of every pyramid level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["exact", "rounded", "legacy"]


def grid_anchors(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    padded: tuple[int, int],
    sizes: Sequence[float],
    ratios: Sequence[float],
    rule: Rule,
    device: torch.device,
) -> list[Tensor]:
    """Anchors of each level, (rows * columns * ratios, 4) xyxy in network-input pixels, row by row.

    Args:
        shapes: (rows, columns) of the levels.
        strides: px, of the levels.
        padded: (height, width) of the batch in pixels.
        sizes: px, square root of the anchors' area, one for each level.
        ratios: height / width.
        rule: "exact" (Detectron2); "rounded" to whole pixels, and the stride is image size / map size rounded down,
            which on P6 is not always 64 (torchvision); "legacy": Detectron's, rounded multiples of size / stride around
            the cells' centres.
        device: of the result.
    """
    levels = []
    for (rows, columns), stride, size in zip(shapes, strides, sizes, strict=True):
        down, right = (padded[0] // rows, padded[1] // columns) if rule == "rounded" else (stride, stride)
        y = torch.arange(rows, device=device, dtype=torch.float32) * down
        x = torch.arange(columns, device=device, dtype=torch.float32) * right
        corner = torch.stack([x.repeat(rows), y.repeat_interleave(columns, output_size=rows * columns)], 1)
        cells = torch.tensor([_cell_anchor(stride, size, ratio, rule) for ratio in ratios])
        levels.append((corner.repeat(1, 2)[:, None] + cells.to(device, non_blocking=True)).view(-1, 4))
    return levels


def _cell_anchor(stride: int, size: float, ratio: float, rule: Rule) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 around the upper left corner of a cell."""
    if rule == "legacy":
        # Detectron's sides are whole multiples of size / stride. Its boxes end at the index of the last pixel; here
        # they end behind it.
        width = round((stride * stride / ratio) ** 0.5)
        height = round(width * ratio)
        half_width, half_height = width * size / stride / 2, height * size / stride / 2
        return stride / 2 - half_width, stride / 2 - half_height, stride / 2 + half_width, stride / 2 + half_height
    half_width, half_height = size / ratio**0.5 / 2, size * ratio**0.5 / 2
    if rule == "rounded":
        half_width, half_height = round(half_width), round(half_height)
    return -half_width, -half_height, half_width, half_height
