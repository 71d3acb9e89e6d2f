"""Contours with evenly divided edges: the rectangle DANCE starts from, and how many vertices every edge gets."""

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


def rectangles(boxes: Tensor, vertices: int) -> Tensor:
    """Boxes (K, 4) -> contours (K, vertices, 2) that start at the top right corner and run over the top left one.

    All four corners are vertices; every side is divided evenly.
    """
    x0, y0, x1, y1 = boxes.unbind(1)
    corners = torch.stack([x1, y0, x0, y0, x0, y1, x1, y1], 1).view(-1, 4, 2)
    width, height = x1 - x0, y1 - y0
    counts = divide_edges(torch.stack([width, height, width, height], 1), vertices)
    end = counts.cumsum(1)
    vertex = torch.arange(vertices, device=boxes.device)
    edge = (vertex[:, None] >= end[:, None]).sum(2)  # (K, vertices)
    part = (vertex - (end - counts).gather(1, edge)).to(boxes.dtype) / counts.gather(1, edge)
    pick = edge[..., None].expand(-1, -1, 2)
    begin, ahead = corners.gather(1, pick), corners.roll(-1, 1).gather(1, pick)
    return begin + part[..., None] * (ahead - begin)
