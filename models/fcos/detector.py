"""FCOS, the one-stage detector under the contour models: head, losses, detections.

Shapes: B images, L locations of all levels of one image, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, sigmoid_focal_loss

from models.boxes import clip_boxes, image_limits, jitter_boxes, paired_iou
from models.fcos.targets import ExtremesTarget, Grid, assign, centerness, distances, giou
from models.layers import group_norm, in_float32, init_normal
from sharpcontour.errors import InputError
from sharpcontour.host import Target, at_least_one_pixel


@dataclass
class FCOSConfig:
    """Settings of the FCOS detector on P3 to P7; the defaults are the published ones."""

    num_convs: int = 4  # of the classification tower and of the box tower
    extreme_points: bool = False  # also regress the four extreme points (DANCE)
    centre_radius: float = 1.5  # strides around an object's centre within which locations learn it
    size_limits: tuple[float, ...] = (64.0, 128.0, 256.0, 512.0)  # px, largest box distance from one level to the next
    prior: float = 0.01  # probability of every class before training
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    score_threshold: float = 0.05  # of the class probability
    threshold_product: bool = False  # ... of that times the centre-ness (CondInst)
    candidates: int = 1000  # per level, before suppression
    nms_threshold: float = 0.6  # IoU within a class
    max_detections: int = 100  # per image
    max_positives: int = 500  # per process, training locations handed to the refiner; keeps memory bounded
    jitter: float = 0.1  # of width and height, of the refiner's box where the prediction is still far off


def small_detector(config: FCOSConfig) -> FCOSConfig:
    """Make ``config`` a detector that learns in minutes on two CPU cores; returns it."""
    config.num_convs, config.max_positives = 2, 128
    return config


@dataclass
class Predictions:
    """The output of the FCOS head, all levels in one row.

    Attributes:
        classes: (B, L, C) logits.
        sides: (B, L, 4) left, top, right, bottom in strides, not negative.
        centerness: (B, L) logits.
        extremes: (B, L, 4) in box sides, or None.
        towers: the box tower's features of every level, (B, F, rows, columns).
        grid: the locations.
    """

    classes: Tensor
    sides: Tensor
    centerness: Tensor
    extremes: Tensor | None
    towers: list[Tensor]
    grid: Grid

    def boxes(self, image_index: Tensor, location: Tensor) -> Tensor:
        """The boxes (K, 4) predicted at K locations, in network-input pixels and not clipped."""
        reach = self.sides[image_index, location] * self.grid.stride[location][:, None]
        points = self.grid.points[location]
        return torch.cat([points - reach[:, :2], points + reach[:, 2:]], 1)


@dataclass
class Positives:
    """K training locations that are responsible for an object.

    Attributes:
        boxes: (K, 4) detached, clipped, every side at least a pixel: the prediction where it overlaps the object by
            more than one half, else the object's own box with its sides moved a little.
        image_index: (K,) int64.
        location: (K,) int64, index into the grid.
        target_index: (K,) int64, the object, counted through the targets of the batch.
    """

    boxes: Tensor
    image_index: Tensor
    location: Tensor
    target_index: Tensor


@dataclass
class FCOSDetections:
    """K detections of the batch, image after image, best first within each.

    Attributes:
        boxes: (K, 4) as predicted; may reach beyond the image.
        clipped: (K, 4) cut at the image's border; no side is empty.
        scores: (K,) square root of class probability times centre-ness.
        labels: (K,) int64.
        image_index: (K,) int64.
        location: (K,) int64, index into the grid.
        counts: detections of each image.
    """

    boxes: Tensor
    clipped: Tensor
    scores: Tensor
    labels: Tensor
    image_index: Tensor
    location: Tensor
    counts: list[int]


class FCOSHead(nn.Module):
    """The FCOS head: two towers shared by all levels; only the scale of the distances is learned for each level."""

    def __init__(self, config: FCOSConfig, num_classes: int, channels: int, levels: int) -> None:
        super().__init__()
        self.cls_tower = _tower(channels, config.num_convs)
        self.bbox_tower = _tower(channels, config.num_convs)
        self.cls_logits = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(channels, 4, 3, padding=1)
        self.ctrness = nn.Conv2d(channels, 1, 3, padding=1)
        self.extrm_pred = nn.Conv2d(channels, 4, 3, padding=1) if config.extreme_points else None
        self.scales = nn.Parameter(torch.ones(levels))
        init_normal(self)
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - config.prior) / config.prior))  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor], grid: Grid) -> Predictions:
        classes, sides, centers, extremes, towers = [], [], [], [], []
        for scale, feature in zip(self.scales, maps, strict=True):
            tower = self.bbox_tower(feature)
            classes.append(self.cls_logits(self.cls_tower(feature)))
            sides.append(F.relu(scale * in_float32(self.bbox_pred, tower)))
            centers.append(self.ctrness(tower))
            if self.extrm_pred is not None:
                extremes.append(in_float32(self.extrm_pred, tower).tanh())
            towers.append(tower)
        return Predictions(
            _rows(classes),
            _rows(sides),
            _rows(centers)[..., 0],
            _rows(extremes) if extremes else None,
            towers,
            grid,
        )


def _tower(channels: int, convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convs):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), group_norm(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _rows(maps: list[Tensor]) -> Tensor:
    """(B, C, rows, columns) of every level -> (B, L, C) in float32."""
    return torch.cat([m.flatten(2) for m in maps], 2).transpose(1, 2).float()


class FCOS(nn.Module):
    """The FCOS detector: its head, its losses and its choice of detections.

    Args:
        config: all choices.
        num_classes: C.
        channels: of the pyramid levels.
        strides: of the pyramid levels it works on, finest first.
    """

    bounds: Tensor

    def __init__(self, config: FCOSConfig, num_classes: int, channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        if len(config.size_limits) != len(strides) - 1:
            raise InputError(f"fcos.size_limits must be {len(strides) - 1} sizes, not {len(config.size_limits)}")
        self.config, self.num_classes, self.strides = config, num_classes, tuple(strides)
        self.head = FCOSHead(config, num_classes, channels, len(self.strides))
        self.register_buffer("bounds", torch.tensor([-1.0, *config.size_limits, 1e8]), persistent=False)

    def forward(self, maps: Sequence[Tensor]) -> Predictions:
        shapes = [(int(m.shape[2]), int(m.shape[3])) for m in maps]
        return self.head(maps, Grid.build(shapes, self.strides, maps[0].device))

    def assign(self, grid: Grid, targets: Sequence[Target], centres: Sequence[Tensor]) -> Tensor:
        """The object of every location, (B, L) int64, counted through the targets of the batch; -1 is background.

        Args:
            grid: the locations.
            targets: "boxes" (N, 4) of each image.
            centres: (N, 2) of each image, around which locations learn an object.
        """
        matched, before = [], 0
        for target, centre in zip(targets, centres, strict=True):
            boxes = target["boxes"]
            index = assign(grid, boxes, centre, self.config.centre_radius, self.bounds)
            matched.append(torch.where(index >= 0, index + before, -1))
            before += len(boxes)
        return torch.stack(matched)

    def losses(self, found: Predictions, targets: Sequence[Target], matched: Tensor) -> dict[str, Tensor]:
        """The three detector losses, and "loss_ext_pts" with the extreme-point branch.

        Everything is computed at all locations and masked, so that nothing waits for the device.

        Args:
            found: the head's output.
            targets: "boxes" (N, 4), "labels" (N,) and, for the branch, "extremes" (N, 4) of each image: x of the top,
                y of the left, x of the bottom and y of the right extreme point.
            matched: from :meth:`assign`.
        """
        positive = matched >= 0
        # Background points at one more, made-up object, which the mask takes out again.
        boxes = torch.cat([target["boxes"] for target in targets] + [found.sides.new_ones(1, 4)])
        labels = torch.cat([target["labels"] for target in targets] + [matched.new_full((1,), self.num_classes)])
        index = torch.where(positive, matched, len(boxes) - 1)
        sides = distances(found.grid.points, boxes[index]) / found.grid.stride[:, None]
        sides = torch.where(positive[..., None], sides, 1.0)
        weight = centerness(sides) * positive
        total = mean_over_processes(torch.stack([positive.sum().float(), weight.sum()]))
        count, mass = total[0].clamp(min=1.0), total[1].clamp(min=1e-6)
        onehot = (labels[index][..., None] == torch.arange(self.num_classes, device=index.device)).float()
        focal = sigmoid_focal_loss(
            found.classes, onehot, self.config.focal_alpha, self.config.focal_gamma, reduction="sum"
        )
        center = F.binary_cross_entropy_with_logits(found.centerness, weight, reduction="none") * positive
        losses = {
            "loss_fcos_cls": focal / count,
            "loss_fcos_loc": (weight * (1 - giou(found.sides, sides))).sum() / mass,
            "loss_fcos_ctr": center.sum() / count,
        }
        if found.extremes is not None:
            own = cast(Sequence[ExtremesTarget], targets)
            extremes = torch.cat([target["extremes"] for target in own] + [boxes.new_zeros(1, 4)])[index]
            wanted = _relative_extremes(found.grid.points, extremes, boxes[index])
            wanted = torch.where(positive[..., None], wanted, 0.0)
            error = F.smooth_l1_loss(found.extremes, wanted, reduction="none").sum(-1)
            losses["loss_ext_pts"] = (weight * error).sum() / mass
        return losses

    def positives(
        self, found: Predictions, targets: Sequence[Target], matched: Tensor, sizes: list[tuple[int, int]]
    ) -> Positives:
        """The training instances for a refiner: responsible locations, at most ``max_positives``, drawn at random."""
        image_index, location = (matched >= 0).nonzero(as_tuple=True)
        if len(location) > self.config.max_positives:
            chosen = torch.randperm(len(location), device=location.device)[: self.config.max_positives]
            image_index, location = image_index[chosen], location[chosen]
        target_index = matched[image_index, location]
        wanted = torch.cat([target["boxes"] for target in targets])[target_index]
        predicted = found.boxes(image_index, location).detach()
        # Paper silent on the box of a training instance: the predicted one as at test time, once it means the object.
        good = paired_iou(predicted, wanted) > 0.5
        boxes = torch.where(good[:, None], predicted, jitter_boxes(wanted, self.config.jitter))
        limits = image_limits(sizes, boxes.device)[image_index]
        return Positives(at_least_one_pixel(boxes, limits), image_index, location, target_index)

    @torch.no_grad()
    def detect(self, found: Predictions, sizes: list[tuple[int, int]]) -> FCOSDetections:
        """Choose detections: threshold, best of each level, suppression within classes, best of each image."""
        classes, center = found.classes.sigmoid(), found.centerness.sigmoid()
        compared = classes * center[..., None] if self.config.threshold_product else classes
        image_index, location, labels = (compared > self.config.score_threshold).nonzero(as_tuple=True)
        scores = classes[image_index, location, labels] * center[image_index, location]
        group = image_index * len(self.strides) + found.grid.level[location]
        best = best_of_groups(scores, group, self.config.candidates)
        image_index, location, labels, scores = image_index[best], location[best], labels[best], scores[best].sqrt()
        boxes = found.boxes(image_index, location)
        clipped = clip_boxes(boxes, image_limits(sizes, boxes.device)[image_index])
        solid = (clipped[:, 2:] > clipped[:, :2]).all(1)
        kept = []
        for image in range(len(sizes)):
            index = (image_index == image).nonzero()[:, 0]
            order = batched_nms(boxes[index], scores[index], labels[index], self.config.nms_threshold)
            index = index[order[: self.config.max_detections]]
            kept.append(index[solid[index]])
        keep = torch.cat(kept)
        return FCOSDetections(
            boxes[keep],
            clipped[keep],
            scores[keep],
            labels[keep],
            image_index[keep],
            location[keep],
            [len(index) for index in kept],
        )


def _relative_extremes(points: Tensor, extremes: Tensor, boxes: Tensor) -> Tensor:
    """Extreme points (B, L, 4) seen from the locations (L, 2), in widths and heights of the boxes (B, L, 4)."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (extremes - points.repeat(1, 2)) / sides.repeat(1, 1, 2)


def best_of_groups(scores: Tensor, group: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` best scores in every group, sorted by group and then by falling score."""
    order = scores.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    ordered = group[order]
    rank = torch.arange(len(order), device=order.device) - torch.searchsorted(ordered, ordered)
    return order[rank < count]


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean over all training processes; without a process group the values themselves. No gradient."""
    values = values.detach().clone()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
        values /= torch.distributed.get_world_size()
    return values
