"""Table 9: the two designs the authors tried before, which regress the offset of a vertex instead of testing points.

Both read the same feature and place, through the same MLP with generated weights; ``classifier.output`` names them:
"vector" (Reg.1) predicts x and y of the way to the boundary, "distance" (Reg.2) its length along the normal. Every
iteration asks anew where the vertices are then.

Paper silent on units and loss: offsets are in units of ``points.sigma`` sqrt(A), A that of the instance's box, about
the training points' spread, and the loss is smooth L1, with the boundary point nearest to a training point, of all
samples, as the target. The one that it was drawn beside is among them.

Shapes: K instances, Q points of each, R rings, N vertices.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sharpcontour.config import SharpContourConfig
from sharpcontour.contours.geometry import outward_normals
from sharpcontour.evolution import Evolution

MAX_OFFSET = 3.0  # units: points drawn far away must not rule the loss


def regression_loss(found: Tensor, points: Tensor, labels: Tensor, boundary: Tensor, unit: Tensor) -> Tensor:
    """Smooth L1 between predicted and true offsets.

    Args:
        found: (K, O, Q), O = 2 for vectors, 1 for distances, positive out of the object.
        points: (K, Q, 2) pixels.
        labels: (K, Q), 1 outside and 0 inside.
        boundary: (K, S, 2) points on the boundary.
        unit: (K,) pixels.
    """
    # By differences: products of coordinates of a thousand pixels leave errors of a tenth of one.
    distance = torch.cdist(points, boundary, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = boundary.gather(1, distance.argmin(2)[..., None].expand(-1, -1, 2))
    way = (nearest - points) / unit[:, None, None]
    length = way.norm(dim=2, keepdim=True)
    way = way * (MAX_OFFSET / length.clamp(min=MAX_OFFSET))
    if found.shape[1] == 1:
        way = way.norm(dim=2, keepdim=True) * torch.where(labels > 0.5, -1.0, 1.0)[..., None]
    return F.smooth_l1_loss(found, way.transpose(1, 2))


def regress(
    vertices: Tensor,
    hole: Tensor,
    area: Tensor,
    limits: Tensor,
    predict: Callable[[Tensor], Tensor],
    config: SharpContourConfig,
) -> Evolution:
    """Move every vertex by its predicted offset, n times.

    Args:
        vertices, hole, area, limits: as of :func:`~sharpcontour.evolution.evolve`.
        predict: offsets (R, O, N) of points (R, N, 2), in units.
        config: of the whole refiner.

    Returns:
        The course; nothing flips, and there is no phi whose sharpness could be told.
    """
    course = Evolution([vertices], [], [], [], [])
    away = torch.where(hole, -1.0, 1.0)[:, None, None]
    unit = config.points.sigma * area.sqrt()[:, None, None]
    for _ in range(config.evolution.iterations):
        start = course.steps[-1]
        offset = predict(start).transpose(1, 2) * unit
        if config.classifier.output == "distance":
            offset = offset * outward_normals(start, config.evolution.normal_window) * away
        course.steps.append((start + offset).clamp(min=0).minimum(limits[:, None]))
        nothing = torch.zeros_like(start[..., 0])
        course.sharpness.append(nothing)
        course.active.append(torch.ones_like(nothing, dtype=torch.bool))
        course.flipped.append(torch.zeros_like(nothing, dtype=torch.bool))
        course.moves.append(torch.ones_like(nothing, dtype=torch.int64))
    return course
