"""Geometry of contours on the device: areas, normals, even spacing, self-crossings.

Shapes: R rings, N vertices; vertices are (R, N, 2) x, y with y down, implicitly closed.
"""

from __future__ import annotations

import torch
from torch import Tensor


def signed_area(vertices: Tensor) -> Tensor:
    """Shoelace areas (R,) of rings, positive where a ring runs clockwise as seen on the screen."""
    ahead = vertices.roll(-1, 1)
    return (vertices[..., 0] * ahead[..., 1] - ahead[..., 0] * vertices[..., 1]).sum(1) / 2


def outward_normals(vertices: Tensor, window: float) -> Tensor:
    """Unit normals that point out of the area each ring encloses, (R, N, 2).

    Paper silent: how the normal is estimated. Here it is perpendicular to the chord between the vertices ``window``
    pixels behind and ahead. Neighbours alone would follow the pixel-sized jitter of closely spaced vertices.

    Args:
        vertices: (R, N, 2) in pixels.
        window: half-length of the chord in pixels; at least one vertex and at most an eighth of the ring.
    """
    n = vertices.shape[1]
    perimeter = (vertices.roll(-1, 1) - vertices).norm(dim=-1).sum(1)
    reach = (window * n / perimeter.clamp(min=1e-6)).round().clamp(1, max(n // 8, 1)).long()
    index = torch.arange(n, device=vertices.device)
    ahead = (index + reach[:, None]) % n
    behind = (index - reach[:, None]) % n
    chord = _pick(vertices, ahead) - _pick(vertices, behind)
    normal = torch.stack([chord[..., 1], -chord[..., 0]], -1)
    normal = normal * signed_area(vertices).sign()[:, None, None]
    return normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def resample(vertices: Tensor, count: int) -> Tensor:
    """Space ``count`` vertices evenly by arc length: (R, N, 2) -> (R, count, 2), starting at the first vertex."""
    edges = vertices.roll(-1, 1) - vertices
    length = edges.norm(dim=-1) + 1e-9
    end = length.cumsum(1)
    target = end[:, -1:] * (torch.arange(count, device=vertices.device) / count)
    edge = torch.searchsorted(end, target, right=True).clamp(max=vertices.shape[1] - 1)
    part = 1 - (end.gather(1, edge) - target) / length.gather(1, edge)
    return _pick(vertices, edge) + part[..., None] * _pick(edges, edge)


def self_crossing(vertices: Tensor, chunk: int = 64) -> Tensor:
    """Whether two edges of a ring that are no neighbours cross, (R,) bool; touching does not count.

    Every pair of edges is compared, ``chunk`` rings at a time: a diagnostic, not part of the method.
    """
    found = [_crosses(part) for part in vertices.split(chunk)]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.bool, device=vertices.device)


def _crosses(vertices: Tensor) -> Tensor:
    a, b = vertices, vertices.roll(-1, 1)
    side_a = _side(a[:, :, None], b[:, :, None], a[:, None])  # of every vertex, as seen from every edge
    changes = side_a * side_a.roll(-1, 2) < 0  # edge j has its ends on two sides of edge i
    return (changes & changes.transpose(1, 2)).flatten(1).any(1)


def _side(a: Tensor, b: Tensor, p: Tensor) -> Tensor:
    along, to = b - a, p - a
    return along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]


def _pick(vertices: Tensor, index: Tensor) -> Tensor:
    return vertices.gather(1, index[..., None].expand(-1, -1, 2))
