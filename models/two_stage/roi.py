"""Regions of interest: features from the right pyramid level, and the box head that classifies and moves them.

Shapes: R RoIs of the batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, roi_align

from models.boxes import clip_boxes, counts_of, image_limits, indexed_boxes
from models.two_stage.box_coder import Weights, decode, encode

Norm = Literal["none", "bn", "sync_bn"]

_LEVEL_EPS = {"detectron2": (1e-8, 0.0), "detectron": (1e-6, 0.0), "torchvision": (0.0, 1e-6)}


@dataclass
class PoolConfig:
    """Settings of the cutting out of RoI features; the defaults are Detectron2's."""

    aligned: bool = True  # cell centres at half pixels, as everywhere here; off: shifted by half a cell (older models)
    sampling_ratio: int = 0  # samples along a side of an output cell; 0: about one for each cell of the map
    levels: Literal["detectron2", "detectron", "torchvision"] = (
        "detectron2"  # rounding where a box falls between levels
    )
    end: float = 0.0  # px added to right and bottom of a box; Detectron: -1, as its boxes end at a pixel's index


class Pool:
    """RoIAlign on the pyramid level that suits each box: 224 px on P4, half of that on P3, and so on.

    Args:
        config: all choices.
        strides: px, of the levels P2 to P5.
    """

    def __init__(self, config: PoolConfig, strides: Sequence[int]) -> None:
        self.config, self.strides = config, tuple(strides)

    def covered(self, boxes: Tensor) -> Tensor:
        """The boxes (R, 4) that are cut out of the maps for boxes (R, 4)."""
        end = self.config.end
        return torch.cat([boxes[:, :2], boxes[:, 2:] + end], 1) if end else boxes

    def __call__(self, maps: Sequence[Tensor], boxes: Tensor, image_index: Tensor, size: int) -> Tensor:
        """Features (R, channels, size, size) of boxes (R, 4), network-input pixels, of the images (R,) int64."""
        config, level = self.config, self.levels(boxes)
        rois = indexed_boxes(self.covered(boxes), image_index)
        order = level.argsort(stable=True)
        counts = counts_of(level, len(maps))
        with torch.autocast(boxes.device.type, enabled=False):  # coordinates in half precision would be pixels off
            parts = [
                roi_align(features.float(), part, size, 1 / stride, config.sampling_ratio, config.aligned)
                for features, part, stride in zip(maps, rois[order].split(counts), self.strides, strict=True)
            ]
        return torch.cat(parts)[order.argsort()]

    def levels(self, boxes: Tensor) -> Tensor:
        """The pyramid level that suits each box, (R,) int64, 0 for P2."""
        inside, outside = _LEVEL_EPS[self.config.levels]
        side = (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=0).sqrt()
        level = torch.floor(4 + torch.log2(side / 224 + inside) + outside)
        return level.clamp(2, 1 + len(self.strides)).long() - 2


@dataclass
class BoxHeadConfig:
    """Settings of classification and box regression of RoIs; the defaults are Detectron2's."""

    num_convs: int = 0  # 3x3, before the fully connected layers
    num_fcs: int = 2
    channels: int = 1024  # of the fully connected layers; the convolutions keep the pyramid's
    norm: Norm = "none"  # after the convolutions
    resolution: int = 7  # cells along a side of a RoI
    weights: Weights = (10.0, 10.0, 5.0, 5.0)  # of the deltas
    foreground_iou: float = 0.5
    claim_seizes: bool = False  # the proposal that overlaps an object most learns it, even if another one more (mmdet)
    batch: int = 512  # RoIs of an image that learn
    foreground_share: float = 0.25  # of them, at most
    jittered: int = 0  # copies of every object's box, its sides moved at random, among the proposals in training
    jitter: float = 0.1  # of width and height, how far they move at most
    loss_beta: float = 0.0  # where the box loss turns from quadratic to linear; 0: L1
    score_threshold: float = 0.05
    nms_threshold: float = 0.5  # IoU within a class
    max_detections: int = 100  # of an image
    min_side: float = 0.0  # px, of a detection
    loss_weight: float = 1.0  # of both losses
    masks_on_predictions: bool = False  # the mask branch learns on this head's boxes, not on the proposals (PointRend)
    init: Literal["detectron2", "torchvision"] = "detectron2"  # of the weights


class BoxHead(nn.Module):
    """The box head: convolutions, fully connected layers, two predictions. The background is the last class.

    Args:
        config: all choices.
        channels: of the pyramid.
        num_classes: C.
    """

    def __init__(self, config: BoxHeadConfig, channels: int, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.convs = nn.Sequential(*(roi_conv(channels, channels, config.norm) for _ in range(config.num_convs)))
        inputs = [channels * config.resolution**2] + [config.channels] * (config.num_fcs - 1)
        fcs = [nn.Linear(width, config.channels) for width in inputs]
        self.fcs = nn.ModuleList(fcs)
        self.scores = nn.Linear(config.channels, num_classes + 1)
        self.deltas = nn.Linear(config.channels, 4 * num_classes)
        if config.init == "detectron2":
            for fc in fcs:
                nn.init.kaiming_uniform_(fc.weight, a=1)
            nn.init.normal_(self.scores.weight, std=0.01)
            nn.init.normal_(self.deltas.weight, std=0.001)
            for layer in (*fcs, self.scores, self.deltas):
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, channels, 7, 7) -> logits (R, C + 1) and deltas (R, C, 4), float32."""
        x = self.convs(features).flatten(1)
        for fc in self.fcs:
            x = F.relu(fc(x))
        return self.scores(x).float(), self.deltas(x).float().view(-1, self.num_classes, 4)

    def losses(self, logits: Tensor, deltas: Tensor, rois: Tensor, labels: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """Cross entropy over all RoIs, and the box loss of the foreground divided by the number of all.

        Args:
            logits, deltas: from :meth:`forward`.
            rois: (R, 4).
            labels: (R,) int64, C for background.
            boxes: (R, 4), the objects of the foreground; anything for the background.
        """
        foreground = labels < self.num_classes
        found = self._of_class(deltas, labels)
        wanted = torch.where(foreground[:, None], encode(boxes, rois, self.config.weights), 0.0)
        loss = F.smooth_l1_loss(found, wanted, beta=self.config.loss_beta, reduction="none")
        scale = self.config.loss_weight / max(len(labels), 1)
        return {
            "loss_box_cls": scale * F.cross_entropy(logits, labels, reduction="sum"),
            "loss_box_loc": scale * torch.where(foreground[:, None], loss, 0.0).sum(),
        }

    @torch.no_grad()
    def predicted(self, deltas: Tensor, rois: Tensor, labels: Tensor) -> Tensor:
        """Where RoIs (R, 4) move if they are of the classes ``labels`` (R,), not clipped to the image: (R, 4)."""
        boxes = decode(self._of_class(deltas, labels), rois, self.config.weights)
        # NaN has no level of the pyramid; the losses of such a batch are not finite either, and it will be skipped.
        return torch.where(boxes.isfinite().all(1, keepdim=True), boxes, rois)

    @torch.no_grad()
    def detect(
        self, logits: Tensor, deltas: Tensor, rois: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (K, 4) clipped to the image, scores (K,) and labels (K,) of each image, best first."""
        config, counts = self.config, [len(roi) for roi in rois]
        probability = logits.softmax(1)[:, :-1]
        boxes = decode(deltas, torch.cat(rois)[:, None], config.weights)
        limits = image_limits(sizes, boxes.device)
        detections = []
        for score, box, limit in zip(probability.split(counts), boxes.split(counts), limits, strict=True):
            box = clip_boxes(box, limit)
            sides = box[..., 2:] - box[..., :2]
            usable = ((sides > 0) & (sides >= config.min_side)).all(-1)
            row, label = ((score > config.score_threshold) & usable).nonzero(as_tuple=True)
            candidates, values = box[row, label], score[row, label]
            keep = batched_nms(candidates, values, label, config.nms_threshold)[: config.max_detections]
            detections.append((candidates[keep], values[keep], label[keep]))
        return detections

    def _of_class(self, deltas: Tensor, labels: Tensor) -> Tensor:
        """(R, C, 4) -> (R, 4); of background any."""
        return deltas[torch.arange(len(deltas), device=deltas.device), labels.clamp(max=self.num_classes - 1)]


def roi_conv(channels: int, out_channels: int, norm: Norm, dilation: int = 1) -> nn.Sequential:
    """3x3 convolution of the same size, the norm if any, ReLU; initialised as He et al. do (fan out)."""
    conv = nn.Conv2d(channels, out_channels, 3, padding=dilation, dilation=dilation, bias=norm == "none")
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    if norm == "none":
        return nn.Sequential(conv, nn.ReLU(inplace=True))
    kind = nn.BatchNorm2d if norm == "bn" else nn.SyncBatchNorm
    return nn.Sequential(conv, kind(out_channels), nn.ReLU(inplace=True))


def logits_of_class(layer: nn.Conv1d | nn.Conv2d, features: Tensor, labels: Tensor) -> Tensor:
    """A 1x1 convolution that has an output for each class, evaluated for one class of each RoI instead of all.

    It gives the numbers of the whole convolution at a fraction of the work.

    Args:
        layer: C outputs.
        features: (R, channels, *places).
        labels: (R,) int64.

    Returns:
        (R, *places) float32.
    """
    assert layer.bias is not None
    weight, bias = layer.weight.flatten(1)[labels], layer.bias[labels]
    logits = torch.baddbmm(bias[:, None, None].to(features), weight[:, None].to(features), features.flatten(2))
    return logits.view(len(features), *features.shape[2:]).float()
