"""Polygons with evenly divided edges: what contour models start from.

Shapes: K polygons of E corners, contours of V vertices, coordinates in network-input pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def divide_edges(lengths: Tensor, vertices: int) -> Tensor:
    """How many of ``vertices`` each edge of K closed polygons gets: (K, E) lengths -> (K, E) int64, at least 1 each.

    Shares go by length, rounded; the longest edges take up what rounding leaves over. Needs vertices >= E.
    """
    total = lengths.sum(1, keepdim=True).clamp(min=1e-9)
    counts = (lengths * vertices / total).round().long().clamp(min=1)
    order = lengths.argsort(dim=1, descending=True, stable=True)
    ordered = counts.gather(1, order)
    excess = ordered.sum(1, keepdim=True) - vertices
    spare = ordered - 1
    ordered = ordered - (excess - (spare.cumsum(1) - spare)).clamp(min=0).minimum(spare)
    ordered[:, :1] += (-excess).clamp(min=0)
    return torch.empty_like(counts).scatter_(1, order, ordered)


def divide(corners: Tensor, vertices: int) -> Tensor:
    """Polygons (K, E, 2) -> contours (K, V, 2) that begin at the first corner; all corners are vertices of theirs."""
    ahead = corners.roll(-1, 1) - corners
    counts = divide_edges(ahead.norm(dim=2), vertices)
    end = counts.cumsum(1)
    vertex = torch.arange(vertices, device=corners.device)
    edge = (vertex[:, None] >= end[:, None]).sum(2)  # (K, V)
    part = (vertex - (end - counts).gather(1, edge)).to(corners.dtype) / counts.gather(1, edge)
    pick = edge[..., None].expand(-1, -1, 2)
    return corners.gather(1, pick) + part[..., None] * ahead.gather(1, pick)


def rectangles(boxes: Tensor, vertices: int) -> Tensor:
    """Boxes (K, 4) -> contours (K, V, 2) that start at the top right corner and run over the top left one."""
    x0, y0, x1, y1 = boxes.unbind(1)
    return divide(torch.stack([x1, y0, x0, y0, x0, y1, x1, y1], 1).view(-1, 4, 2), vertices)


def diamonds(boxes: Tensor, vertices: int) -> Tensor:
    """Boxes (K, 4) -> contours (K, V, 2) through the middles of their top, left, bottom and right side.

    With V a multiple of four these are the vertices 0, V / 4, V / 2 and 3 V / 4.
    """
    x0, y0, x1, y1 = boxes.unbind(1)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return divide(torch.stack([x, y0, x0, y, x, y1, x1, y], 1).view(-1, 4, 2), vertices)


def octagons(extremes: Tensor, vertices: int, from_top: bool) -> Tensor:
    """Extreme points (K, 4, 2) -> contours (K, V, 2): a piece of the box's side at each, a quarter of it long at most.

    Args:
        extremes: top, left, bottom and right point.
        vertices: V.
        from_top: begin at the top point and make all four points vertices; else begin at the right end of the top
            piece, and the points lie on edges.
    """
    top, left, bottom, right = extremes.unbind(1)
    low, high = torch.stack([left[:, 0], top[:, 1]], 1), torch.stack([right[:, 0], bottom[:, 1]], 1)
    reach = (high - low) / 8

    def ends(point: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        along = point[:, axis, None] + torch.cat([-reach[:, axis, None], reach[:, axis, None]], 1)
        along = along.clamp(low[:, axis, None], high[:, axis, None])
        across = point[:, 1 - axis]
        first, second = (torch.stack([a, across] if axis == 0 else [across, a], 1) for a in along.unbind(1))
        return first, second

    top_left, top_right = ends(top, 0)
    left_top, left_bottom = ends(left, 1)
    bottom_left, bottom_right = ends(bottom, 0)
    right_top, right_bottom = ends(right, 1)
    if from_top:
        corners = [top, top_left, left_top, left, left_bottom, bottom_left]
        corners += [bottom, bottom_right, right_bottom, right, right_top, top_right]
    else:
        corners = [top_right, top_left, left_top, left_bottom, bottom_left, bottom_right, right_bottom, right_top]
    return divide(torch.stack(corners, 1), vertices)
