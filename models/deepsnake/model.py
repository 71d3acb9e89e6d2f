"""DeepSnake with FCOS: a contour-based host of section 4, which DANCE descends from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from models.boxes import image_limits
from models.deepsnake.config import DeepSnakeConfig, small
from models.deepsnake.network import SnakeBranch
from models.deepsnake.targets import DeepSnakeTarget, build_targets
from models.fcos.detector import FCOSDetections
from models.fcos.host import FCOSHost, Places
from models.host import image_indices
from models.snake.network import STRIDE, contour_loss
from models.snake.polygons import octagons
from sharpcontour.contours.types import Contours
from sharpcontour.host import RefinerInputs, Target, TargetBuilder


class DeepSnake(FCOSHost):
    """DeepSnake on FCOS: a detector and a contour branch, which learns from the objects' own boxes, on one pyramid.

    The refiner reads P2, the host's highest-resolution feature map (section 3.2).
    """

    title = "DeepSnake"
    keep_empty = False
    config_type = DeepSnakeConfig
    small = staticmethod(small)

    def __init__(self, config: DeepSnakeConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.branch = SnakeBranch(config)

    @property
    def target_builder(self) -> TargetBuilder:
        original = self.config.supervision == "original"
        return partial(build_targets, vertices=self.config.vertices, from_top=original)

    def shape_losses(
        self, pyramid: dict[str, Tensor], targets: Sequence[Target], inputs: RefinerInputs, places: Places
    ) -> dict[str, Tensor]:
        """Losses of the extreme points and of the contours."""
        own = cast(Sequence[DeepSnakeTarget], targets)
        boxes = torch.cat([target["snake_boxes"] for target in own])
        extremes = torch.cat([target["snake_extremes"] for target in own])
        start = torch.cat([target["snake_start"] for target in own])
        goal = torch.cat([target["snake_goal"] for target in own])
        image_index = image_indices([len(target["snake_boxes"]) for target in own], boxes.device)
        maps = self.branch(pyramid)
        found = self.branch.extreme_points(maps, image_index, boxes)
        stages = self.branch.deform(maps, image_index, start)
        if self.config.supervision == "original":
            return _original_losses(found, extremes, stages, goal)
        beta, scale = self.config.loss_beta, (boxes[:, 2:] - boxes[:, :2]).amin(1, keepdim=True)
        share = self.config.contour_weight / len(stages)
        losses = {f"loss_stage_{i}": share * contour_loss(s, goal, scale, beta) for i, s in enumerate(stages)}
        losses["loss_extremes"] = self.config.extremes_weight * contour_loss(found, extremes, scale, beta)
        return losses

    def shapes(
        self, pyramid: dict[str, Tensor], found: FCOSDetections, inputs: RefinerInputs, places: Places
    ) -> Contours:
        """The contours after the last step, cut at the image's border."""
        if len(found.boxes) == 0:
            return Contours.from_polygons(found.boxes.new_zeros(0, self.config.vertices, 2))
        maps = self.branch(pyramid)
        border = image_limits([(STRIDE * maps.shape[2] - 1, STRIDE * maps.shape[3] - 1)], maps.device)
        extremes = self.branch.extreme_points(maps, found.image_index, found.boxes).clamp(min=0).minimum(border[:, :2])
        start = octagons(extremes, self.config.vertices, from_top=True)
        contours = self.branch.deform(maps, found.image_index, start)[-1]
        limits = image_limits(inputs.image_sizes, maps.device)[found.image_index, None, :2]
        return Contours.from_polygons(contours.clamp(min=0).minimum(limits))


def _original_losses(found: Tensor, extremes: Tensor, stages: list[Tensor], goal: Tensor) -> dict[str, Tensor]:
    """Losses of the authors' code: smooth L1 of extreme points, in map cells, and of the last contour, in pixels."""
    if len(goal) == 0:
        return {"loss_extremes": found.sum(), "loss_contour": stages[-1].sum()}
    return {
        "loss_extremes": F.smooth_l1_loss(found / STRIDE, extremes / STRIDE),
        "loss_contour": F.smooth_l1_loss(stages[-1], goal),
    }
