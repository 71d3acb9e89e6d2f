"""DANCE (deep attentive contour model) with FCOS: the contour-based host of section 4."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.backbone import Backbone
from models.boxes import at_least_one_pixel, image_limits
from models.dance.config import DanceConfig
from models.dance.contours import rectangles
from models.dance.network import STRIDE, ContourBranch
from models.dance.targets import build_targets
from models.fcos import FCOS, Found, Predictions
from models.fcos_targets import Grid, neighbourhoods, responsible
from models.host import Host
from sharpcontour.detections import Detections
from sharpcontour.interface import Contours, RefinerInputs, TargetBuilder

IGNORE = 255  # in edge maps: the padding around an image


@dataclass
class Encoded:
    """Images as instances from elsewhere need them: P2, the box tower's features of every level, sizes."""

    fine: Tensor
    towers: list[Tensor]
    sizes: list[tuple[int, int]]


class DANCE(Host):
    """Detector and contour branch on one pyramid, trained together.

    The refiner reads P2, the host's highest-resolution feature map (section 3.2), and steers each instance's classifier
    by the box tower's features around the instance's location (section 3.3).

    Args:
        config: all choices.
        num_classes: of the data set.
    """

    detector_levels = ("p3", "p4", "p5", "p6", "p7")

    def __init__(self, config: DanceConfig, num_classes: int) -> None:
        super().__init__(config.backbone)
        self.config = config
        self.backbone = Backbone(config.backbone)
        channels = config.backbone.fpn_channels
        strides = [Backbone.strides[level] for level in self.detector_levels]
        self.detector = FCOS(config.fcos, num_classes, channels, strides)
        self.branch = ContourBranch(config)
        self.fine_channels = channels
        self.controller_shape = (channels, 3, 3)

    @property
    def target_builder(self) -> TargetBuilder:
        return partial(build_targets, vertices=self.config.vertices)

    def losses(self, images: list[Tensor], targets: list[dict[str, Any]]) -> tuple[dict[str, Tensor], RefinerInputs]:
        """Detector, contour and edge losses; instances are the detector's positive locations."""
        batch, sizes = self.batch(images)
        pyramid = self.backbone(batch)
        found, matched = self._matched(pyramid, targets)
        losses = self.detector.losses(found, targets, matched)
        losses.update(self._contour_losses(pyramid, targets))
        return losses, self._positives(pyramid, found, targets, matched, sizes)

    def training_instances(self, images: list[Tensor], targets: list[dict[str, Any]]) -> RefinerInputs:
        """The detector's positive locations."""
        batch, sizes = self.batch(images)
        pyramid = self.backbone(batch)
        found, matched = self._matched(pyramid, targets)
        return self._positives(pyramid, found, targets, matched, sizes)

    def _matched(self, pyramid: dict[str, Tensor], targets: list[dict[str, Any]]) -> tuple[Predictions, Tensor]:
        """What the detector predicts, and the object of every location."""
        found = self.detector([pyramid[level] for level in self.detector_levels])
        centres = [(target["boxes"][:, :2] + target["boxes"][:, 2:]) / 2 for target in targets]
        return found, self.detector.assign(found.grid, targets, centres)

    def _positives(
        self,
        pyramid: dict[str, Tensor],
        found: Predictions,
        targets: list[dict[str, Any]],
        matched: Tensor,
        sizes: list[tuple[int, int]],
    ) -> RefinerInputs:
        positives = self.detector.positives(found, targets, matched, sizes)
        return RefinerInputs(
            fine=pyramid["p2"],
            stride=STRIDE,
            boxes=positives.boxes,
            image_index=positives.image_index,
            feats=neighbourhoods(found.towers, found.grid, positives.image_index, positives.location),
            image_sizes=sizes,
            target_index=positives.target_index,
        )

    def _contour_losses(self, pyramid: dict[str, Tensor], targets: list[dict[str, Any]]) -> dict[str, Tensor]:
        edges, maps = self.branch(pyramid)
        start, goal, sides = (
            torch.cat([target[key] for target in targets]) for key in ("snake_start", "snake_goal", "snake_sides")
        )
        counts = torch.tensor([len(target["snake_start"]) for target in targets])
        image_index = torch.arange(len(targets)).repeat_interleave(counts).to(start.device, non_blocking=True)
        stages = self.branch.deform(maps, image_index, start, sides)
        share = self.config.contour_weight / len(stages)
        losses = {
            f"loss_stage_{i}": share * contour_loss(stage, goal, sides, self.config.loss_beta)
            for i, stage in enumerate(stages)
        }
        losses["loss_edge_det"] = self.config.edge_weight * edge_loss(edges, [target["edges"] for target in targets])
        return losses

    @torch.no_grad()
    def detect(self, images: list[Tensor]) -> tuple[list[Detections], RefinerInputs]:
        """Detections whose only ring is the contour after the last step; it may reach beyond the image."""
        batch, sizes = self.batch(images)
        pyramid = self.backbone(batch)
        predictions = self.detector([pyramid[level] for level in self.detector_levels])
        found = self.detector.detect(predictions, sizes)
        contours = Contours.from_polygons(self._contours(pyramid, found))
        inputs = RefinerInputs(
            fine=pyramid["p2"],
            stride=STRIDE,
            boxes=at_least_one_pixel(found.boxes, image_limits(sizes, batch.device)[found.image_index]),
            image_index=found.image_index,
            feats=neighbourhoods(predictions.towers, predictions.grid, found.image_index, found.location),
            image_sizes=sizes,
            contours=contours,
        )
        rings = contours.rings()
        parts = [part.cpu().split(found.counts) for part in (found.clipped, found.scores, found.labels)]
        detections, begin = [], 0
        for boxes, scores, labels, size in zip(*parts, sizes, strict=True):
            detections.append(Detections(boxes, scores, labels, rings[begin : begin + len(scores)], size))
            begin += len(scores)
        return detections, inputs

    def encode(self, images: list[Tensor]) -> Encoded:
        """The finest map and the box towers: all that instances from elsewhere are described by."""
        batch, sizes = self.batch(images)
        pyramid = self.backbone(batch)
        towers = [self.detector.head.bbox_tower(pyramid[level]) for level in self.detector_levels]
        return Encoded(pyramid["p2"], towers, sizes)

    def describe(self, encoded: Encoded, boxes: list[Tensor]) -> RefinerInputs:
        """By the tower's features around the location that is responsible for each box."""
        device, towers = encoded.fine.device, encoded.towers
        grid = Grid.build([(int(t.shape[2]), int(t.shape[3])) for t in towers], self.detector.strides, device)
        counts = torch.tensor([len(part) for part in boxes])
        image_index = torch.arange(len(boxes)).repeat_interleave(counts).to(device, non_blocking=True)
        together = torch.cat(boxes).to(device, non_blocking=True)
        location = responsible(grid, together, self.detector.bounds)
        return RefinerInputs(
            fine=encoded.fine,
            stride=STRIDE,
            boxes=together,
            image_index=image_index,
            feats=neighbourhoods(towers, grid, image_index, location),
            image_sizes=encoded.sizes,
        )

    def _contours(self, pyramid: dict[str, Tensor], found: Found) -> Tensor:
        """(K, vertices, 2): from the boxes as predicted, by moves measured in the boxes as clipped."""
        if len(found.boxes) == 0:
            return found.boxes.new_zeros(0, self.config.vertices, 2)
        _, maps = self.branch(pyramid)
        start = rectangles(found.boxes, self.config.vertices)
        sides = found.clipped[:, 2:] - found.clipped[:, :2]
        return self.branch.deform(maps, found.image_index, start, sides)[-1]


def contour_loss(contours: Tensor, goal: Tensor, sides: Tensor, beta: float) -> Tensor:
    """Smooth L1 between vertices (N, P, 2), in widths and heights (N, 2) of the boxes; mean over all coordinates."""
    if len(goal) == 0:
        return contours.sum()
    return F.smooth_l1_loss(contours / sides[:, None], goal / sides[:, None], beta=beta)


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
