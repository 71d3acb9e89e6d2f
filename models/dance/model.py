"""DANCE (deep attentive contour model) with FCOS: the contour-based host of section 4."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from models.dance.config import DanceConfig, small
from models.dance.network import ContourBranch
from models.dance.targets import DanceTarget, build_targets
from models.fcos.detector import FCOSDetections
from models.fcos.host import FCOSHost, Places
from models.host import image_indices
from models.snake.network import STRIDE, contour_loss
from models.snake.polygons import rectangles
from sharpcontour.contours.types import Contours
from sharpcontour.host import RefinerInputs, Target, TargetBuilder

IGNORE = 255  # in edge maps: the padding around an image


class DANCE(FCOSHost):
    """DANCE on FCOS: a detector and a contour branch on one pyramid, trained together.

    The refiner reads P2, the host's highest-resolution feature map (section 3.2).
    """

    title = "DANCE"
    config_type = DanceConfig
    small = staticmethod(small)

    def __init__(self, config: DanceConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.branch = ContourBranch(config)

    @property
    def target_builder(self) -> TargetBuilder:
        return partial(build_targets, vertices=self.config.vertices)

    def shape_losses(
        self, pyramid: dict[str, Tensor], targets: Sequence[Target], inputs: RefinerInputs, places: Places
    ) -> dict[str, Tensor]:
        """Losses of the contours, which start from the objects' own boxes in training, and of the edge map."""
        edges, maps = self.branch(pyramid)
        own = cast(Sequence[DanceTarget], targets)
        start = torch.cat([target["snake_start"] for target in own])
        goal = torch.cat([target["snake_goal"] for target in own])
        sides = torch.cat([target["snake_sides"] for target in own])
        image_index = image_indices([len(target["snake_start"]) for target in own], start.device)
        stages = self.branch.deform(maps, image_index, start, sides)
        share = self.config.contour_weight / len(stages)
        losses = {
            f"loss_stage_{i}": share * contour_loss(stage, goal, sides, self.config.loss_beta)
            for i, stage in enumerate(stages)
        }
        losses["loss_edge_det"] = self.config.edge_weight * edge_loss(edges, [target["edges"] for target in own])
        return losses

    def shapes(
        self, pyramid: dict[str, Tensor], found: FCOSDetections, inputs: RefinerInputs, places: Places
    ) -> Contours:
        """The contours after the last step: from the boxes as predicted, by moves measured in the boxes as clipped."""
        if len(found.boxes) == 0:
            return Contours.from_polygons(found.boxes.new_zeros(0, self.config.vertices, 2))
        _, maps = self.branch(pyramid)
        start = rectangles(found.boxes, self.config.vertices)
        sides = found.clipped[:, 2:] - found.clipped[:, :2]
        return Contours.from_polygons(self.branch.deform(maps, found.image_index, start, sides)[-1])


def edge_loss(edges: Tensor, targets: list[Tensor]) -> Tensor:
    """Dice loss of the edge probability, the mean over the images; the padding around an image does not count.

    Args:
        edges: (B, 1, H/4, W/4) probability.
        targets: (h, w) uint8 of each image, 1 on edges, before padding.
    """
    enlarged = F.interpolate(edges, scale_factor=STRIDE, mode="bilinear", align_corners=False)[:, 0]
    wanted = torch.full_like(enlarged, IGNORE, dtype=torch.uint8)
    for slot, target in zip(wanted, targets, strict=True):
        slot[: target.shape[0], : target.shape[1]] = target
    counts = wanted != IGNORE
    enlarged, wanted = enlarged * counts, wanted * counts
    overlap = (enlarged * wanted).sum((1, 2))
    size = (enlarged**2).sum((1, 2)) + wanted.float().sum((1, 2))
    return (1 - 2 * overlap / (size + 1e-4)).mean()
