"""Table 9: the two designs the authors tried before, which regress the offset of a vertex instead of testing points.

Both read the same feature and place, through the same MLP with generated weights; ``classifier.output`` names them:
"vector" (Reg.1) predicts x and y of the way to the boundary, "distance" (Reg.2) its length along the normal. Every
iteration asks anew where the vertices are then.

Paper silent on units and loss. Offsets are in units of ``points.sigma`` sqrt(A), A being the area of the instance's
box: the spread of the training points where that is above its floor ``points.min_sigma``; of smaller objects more
targets are cut at ``MAX_OFFSET``. The loss is smooth L1, and the target of a training point is the nearest of all
samples of its object's boundary, which have the one that a point in the band was drawn beside.

Shapes: K instances, Q points of each, R rings, N vertices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sharpcontour.config import SharpContourConfig
from sharpcontour.contours.geometry import outward_normals
from sharpcontour.evolution import Evolution
from sharpcontour.host import RefinerInputs
from sharpcontour.refiner import SharpContour

MAX_OFFSET = 3.0  # units: points drawn far away must not rule the loss


class OffsetRegression(SharpContour):
    """The refiner that asks its network for offsets of vertices instead of verdicts on points (Table 9)."""

    outputs: ClassVar[tuple[str, ...]] = ("vector", "distance")
    asks: ClassVar[tuple[str, ...]] = ("describe", "evaluate", "unused")

    @property
    def loss_weight(self) -> float:
        """The weight of the regression loss, which takes the place of mu in eq. (3)."""
        return self.config.loss.regression_weight

    def point_loss(self, inputs: RefinerInputs, points: Tensor, labels: Tensor, boundary: Tensor) -> dict[str, Tensor]:
        """The regression loss of K instances' training points (Table 9).

        Args:
            inputs: of the K instances.
            points: (K, Q, 2) in network-input pixels.
            labels: (K, Q), 1 outside and 0 inside.
            boundary: (K, S, 2) points on the boundary of each instance's object.
        """
        instance = torch.arange(len(points), device=points.device)
        found = self.classifier.evaluate(self.classifier.describe(inputs), instance, points)
        unit = offset_unit(self.config, inputs.areas())
        return {"loss_ipc": regression_loss(found, points, labels, boundary, unit)}

    def move(self, inputs: RefinerInputs, vertices: Tensor, hole: Tensor, area: Tensor, limits: Tensor) -> Evolution:
        """Move R rings by the offsets that the MLP predicts for their vertices (Table 9).

        Args:
            inputs: of the instances, ``contours`` set.
            vertices: (R, N, 2) initial contours, x, y in network-input pixels.
            hole: (R,) bool, which rings bound a hole.
            area: (R,) A, the area of each instance's box in square pixels.
            limits: (R, 2) width and height of each ring's image before padding.
        """
        assert inputs.contours is not None
        described, instance = self.classifier.describe(inputs), inputs.contours.instance

        def predict(points: Tensor) -> Tensor:
            return self.classifier.evaluate(described, instance, points)

        return regress(vertices, hole, area, limits, predict, self.config)


def offset_unit(config: SharpContourConfig, area: Tensor) -> Tensor:
    """The pixels that an offset of 1 stands for, ``points.sigma`` sqrt(A), of boxes with A = ``area`` (R,): (R,)."""
    return config.points.sigma * area.sqrt()


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
        vertices: (R, N, 2) initial contours, x, y in network-input pixels.
        hole: (R,) bool; out of the object means into the ring of a hole.
        area: (R,) A, the area of each instance's box in square pixels.
        limits: (R, 2) width and height of each ring's image before padding; vertices are clamped to it.
        predict: offsets (R, O, N) of points (R, N, 2), in units.
        config: of the whole refiner.

    Returns:
        The steps; nothing flips, and there is no phi whose sharpness could be told.
    """
    course = Evolution([vertices])
    away = torch.where(hole, -1.0, 1.0)[:, None, None]
    unit = offset_unit(config, area)[:, None, None]
    for _ in range(config.evolution.iterations):
        start = course.steps[-1]
        offset = predict(start).transpose(1, 2) * unit
        if config.classifier.output == "distance":
            offset = offset * outward_normals(start, config.evolution.normal_window) * away
        course.steps.append((start + offset).clamp(min=0).minimum(limits[:, None]))
    return course
