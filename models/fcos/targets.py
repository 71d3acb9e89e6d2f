"""FCOS: where the locations are, which object each one is responsible for, and the measures its losses compare.

Shapes: B images, L locations of all levels of one image, N objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sharpcontour.host import Target


class ExtremesTarget(Target, total=False):
    """A target for a detector that also regresses extreme points."""

    extremes: Tensor  # (K, 4) float32: x of the top, y of the left, x of the bottom, y of the right extreme point


@dataclass
class Grid:
    """The locations of one image, level after level, each row by row.

    Attributes:
        points: (L, 2) x, y in network-input pixels.
        stride: (L,) float32, pixels between neighbouring locations.
        level: (L,) int64, 0 for the finest level.
        corner: (L,) int64, where the 3x3 cells around each location begin, counted through all levels, each framed by
            one cell on every side.
        pitch: (L,) int64, cells from one row of them to the next.
        shapes: (rows, columns) of each level.
    """

    points: Tensor
    stride: Tensor
    level: Tensor
    corner: Tensor
    pitch: Tensor
    shapes: list[tuple[int, int]]

    @classmethod
    def build(cls, shapes: list[tuple[int, int]], strides: Sequence[int], device: torch.device) -> Grid:
        """Build the grid of levels of these ``shapes`` and ``strides``, finest first, with no copy to the device."""
        points, stride, level, corner, pitch, before = [], [], [], [], [], 0
        for index, ((rows, columns), step) in enumerate(zip(shapes, strides, strict=True)):
            row = torch.arange(rows, device=device).repeat_interleave(columns, output_size=rows * columns)
            column = torch.arange(columns, device=device).repeat(rows)
            points.append(torch.stack([column, row], 1).float() * step + step // 2)
            stride.append(torch.full_like(row, step, dtype=torch.float32))
            level.append(torch.full_like(row, index))
            corner.append(before + row * (columns + 2) + column)
            pitch.append(torch.full_like(row, columns + 2))
            before += (rows + 2) * (columns + 2)
        parts = [torch.cat(part) for part in (points, stride, level, corner, pitch)]
        return cls(parts[0], parts[1], parts[2], parts[3], parts[4], shapes)


def distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Left, top, right, bottom: from points (..., 2) to the sides of boxes (..., 4), positive inside."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)


def assign(grid: Grid, boxes: Tensor, centres: Tensor, radius: float, bounds: Tensor) -> Tensor:
    """The object each location of one image learns: (L,) int64 index into ``boxes``, -1 for background.

    A location is a candidate for an object where it lies within ``radius`` strides of the object's centre and inside
    its box, and where its largest distance to the box's sides falls in the level's range (both ends count). The
    smallest box wins.

    Args:
        grid: the locations.
        boxes: (N, 4) in network-input pixels.
        centres: (N, 2), the box centres or any other point that stands for the object.
        radius: of centre sampling, in strides.
        bounds: (levels + 1,) in pixels: level i learns objects from ``bounds[i]`` to ``bounds[i + 1]``.
    """
    if len(boxes) == 0:
        return torch.full_like(grid.level, -1)
    points = grid.points[:, None]
    sides = distances(points, boxes)  # (L, N, 4)
    reach = radius * grid.stride[:, None, None]
    near = torch.cat([torch.maximum(centres - reach, boxes[:, :2]), torch.minimum(centres + reach, boxes[:, 2:])], -1)
    largest = sides.amax(-1)
    fits = (largest >= bounds[grid.level][:, None]) & (largest <= bounds[grid.level + 1][:, None])
    candidate = (distances(points, near).amin(-1) > 0) & fits
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    smallest, index = torch.where(candidate, areas, torch.inf).min(1)
    return torch.where(smallest.isfinite(), index, -1)


def responsible(grid: Grid, boxes: Tensor, bounds: Tensor) -> Tensor:
    """The one location that stands for each box of an image: (K,) int64.

    It lies nearest to the box's centre, on the level whose range holds the distance from the centre to the farther
    sides; so it is one of those that learn such an object.

    Args:
        grid: the locations.
        boxes: (K, 4) in network-input pixels.
        bounds: as in :func:`assign`.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    level = torch.bucketize((boxes[:, 2:] - boxes[:, :2]).amax(1) / 2, bounds[1:-1])
    first, end = (torch.searchsorted(grid.level, level, right=right) for right in (False, True))
    columns = grid.pitch[first] - 2
    cell = ((centre - grid.points[first]) / grid.stride[first][:, None]).round().long().clamp(min=0)
    column = torch.minimum(cell[:, 0], columns - 1)
    row = torch.minimum(cell[:, 1], (end - first) // columns - 1)
    return first + row * columns + column


def centerness(sides: Tensor) -> Tensor:
    """Centre-ness in [0, 1] from left, top, right, bottom (..., 4): 1 at the centre of the box, 0 on its sides."""
    pairs = torch.stack([sides[..., 0::2], sides[..., 1::2]], -2)  # (left, right), (top, bottom)
    return (pairs.amin(-1) / pairs.amax(-1)).prod(-1).sqrt()


def giou(sides: Tensor, target: Tensor) -> Tensor:
    """Generalised IoU (...,) of two boxes around one location, each given by its four distances (in strides).

    The IoU term is smoothed by one on both sides of the fraction, as FCOS has it.
    """

    def area(low: Tensor, high: Tensor) -> Tensor:
        return (low + high).prod(-1)

    overlap = area(torch.minimum(sides, target)[..., :2], torch.minimum(sides, target)[..., 2:])
    union = area(sides[..., :2], sides[..., 2:]) + area(target[..., :2], target[..., 2:]) - overlap
    hull = area(torch.maximum(sides, target)[..., :2], torch.maximum(sides, target)[..., 2:])
    return (overlap + 1) / (union + 1) - (hull - union) / hull


def neighbourhoods(maps: list[Tensor], grid: Grid, image_index: Tensor, location: Tensor) -> Tensor:
    """The 3x3 cells around K locations, zeros beyond the border: what a 3x3 convolution reads there.

    Args:
        maps: (B, C, rows, columns) of every level.
        grid: their locations.
        image_index: (K,) int64.
        location: (K,) int64, index into the grid.

    Returns:
        (K, C, 3, 3).
    """
    framed = torch.cat([F.pad(m, (1, 1, 1, 1)).flatten(2) for m in maps], 2)  # (B, C, cells)
    step = torch.arange(3, device=location.device)
    cells = grid.corner[location][:, None, None] + step[:, None] * grid.pitch[location][:, None, None] + step
    found = framed.transpose(1, 2)[image_index[:, None], cells.flatten(1)]  # (K, 9, C)
    return found.transpose(1, 2).unflatten(2, (3, 3))
