"""Mask R-CNN with FPN, the two-stage host of section 4."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.backbone import Backbone
from models.boxes import at_least_one_pixel, clip_boxes, image_limits, jitter_boxes
from models.host import Host, image_indices, per_image
from models.mask_rcnn.config import MaskRCNNConfig
from models.mask_rcnn.mask_head import MaskHead, mask_targets
from models.matching import draw, match
from models.roi import BoxHead, Pool
from models.rpn import RPN, Proposals
from sharpcontour.detections import Detections
from sharpcontour.interface import RefinerInputs
from sharpcontour.soft_masks import SoftMasks

PROPOSAL_LEVELS = ("p2", "p3", "p4", "p5", "p6")
ROI_LEVELS = ("p2", "p3", "p4", "p5")


@dataclass
class Encoded:
    """A batch of images behind the backbone: pyramid levels by name, (height, width) of each image and of the batch."""

    pyramid: dict[str, Tensor]
    sizes: list[tuple[int, int]]
    padded: tuple[int, int]


@dataclass
class Sample:
    """The RoIs of a batch that learn, image after image.

    Attributes:
        boxes: (R, 4) network-input pixels.
        image_index: (R,) int64.
        target_index: (R,) int64, the object, counted through the targets of the batch; -1: background.
    """

    boxes: Tensor
    image_index: Tensor
    target_index: Tensor


class MaskRCNN(Host):
    """Proposal network, box head and mask head on one pyramid, trained together.

    The refiner reads P2, the highest-resolution level (section 3.2); the controller shares the mask head's features
    (section 3.3), read behind its convolutions.

    Args:
        config: all choices.
        num_classes: of the data set.
    """

    def __init__(self, config: MaskRCNNConfig, num_classes: int) -> None:
        super().__init__(config.backbone)
        self.config, self.num_classes = config, num_classes
        self.backbone = Backbone(config.backbone, top="pool")
        channels = config.backbone.fpn_channels
        self.rpn = RPN(config.rpn, channels, [Backbone.strides[level] for level in PROPOSAL_LEVELS])
        self.pool = Pool(config.pool, [Backbone.strides[level] for level in ROI_LEVELS])
        self.box_head = BoxHead(config.box_head, channels, num_classes)
        self.mask_head = MaskHead(config.mask_head, channels, num_classes)
        self.fine_channels = channels
        side = config.mask_head.resolution
        self.controller_shape = (config.mask_head.channels, side, side)

    def encode(self, images: list[Tensor]) -> Encoded:
        """Everything that does not depend on boxes."""
        batch, sizes = self.batch(images)
        return Encoded(self.backbone(batch), sizes, (int(batch.shape[2]), int(batch.shape[3])))

    def describe(self, encoded: Encoded, boxes: list[Tensor]) -> RefinerInputs:
        """Mask head features of boxes from anywhere, (K_i, 4) of each image."""
        device = encoded.pyramid["p2"].device
        together = torch.cat(boxes).to(device, torch.float32)
        image_index = image_indices([len(part) for part in boxes], device)
        return self._inputs(encoded, together, image_index, self._mask_features(encoded, together, image_index))

    def losses(self, images: list[Tensor], targets: list[dict[str, Any]]) -> tuple[dict[str, Tensor], RefinerInputs]:
        """Proposal, box and mask losses; instances are the RoIs that train the mask head."""
        encoded = self.encode(images)
        proposed = self._propose(encoded)
        losses = self.rpn.losses(proposed, targets, encoded.sizes)
        sample = self._sample(self.rpn.propose(proposed, encoded.sizes), targets, encoded.sizes)
        losses.update(self._box_losses(encoded, sample, targets))
        boxes, inputs = self._foreground(encoded, sample)
        losses["loss_mask"] = self._mask_loss(inputs, boxes, targets)
        return losses, inputs

    def training_instances(self, images: list[Tensor], targets: list[dict[str, Any]]) -> RefinerInputs:
        """The RoIs that train the mask head."""
        encoded = self.encode(images)
        proposals = self.rpn.propose(self._propose(encoded), encoded.sizes)
        return self._foreground(encoded, self._sample(proposals, targets, encoded.sizes))[1]

    @torch.no_grad()
    def detect(self, images: list[Tensor]) -> tuple[list[Detections], RefinerInputs]:
        """Detections with soft masks; these are pasted where pixels are asked for, at the size asked for."""
        encoded = self.encode(images)
        rois = self.rpn.propose(self._propose(encoded), encoded.sizes)
        image_index = image_indices([len(part) for part in rois], rois[0].device)
        logits, deltas = self.box_head(self._box_features(encoded, torch.cat(rois), image_index))
        found = self.box_head.detect(logits, deltas, rois, encoded.sizes)
        counts = [len(scores) for _, scores, _ in found]
        boxes, scores, labels = (torch.cat(part) for part in zip(*found, strict=True))
        image_index = image_indices(counts, boxes.device)
        features = self._mask_features(encoded, boxes, image_index)
        probabilities = self.mask_head(features, labels).sigmoid()
        inputs = self._inputs(encoded, boxes, image_index, features)
        covered = self.pool.covered(boxes)
        inputs.soft_masks = SoftMasks(probabilities.cpu(), covered.cpu(), self.config.mask_head.paste)
        return per_image(boxes, scores, labels, inputs.soft_masks, counts, encoded.sizes), inputs

    def _propose(self, encoded: Encoded) -> Proposals:
        return self.rpn([encoded.pyramid[level] for level in PROPOSAL_LEVELS], encoded.padded)

    def _inputs(self, encoded: Encoded, boxes: Tensor, image_index: Tensor, features: Tensor) -> RefinerInputs:
        return RefinerInputs(
            fine=encoded.pyramid["p2"],
            stride=Backbone.strides["p2"],
            boxes=at_least_one_pixel(boxes.detach(), image_limits(encoded.sizes, boxes.device)[image_index]),
            image_index=image_index,
            feats=features,
            image_sizes=encoded.sizes,
        )

    def _box_features(self, encoded: Encoded, boxes: Tensor, image_index: Tensor) -> Tensor:
        maps = [encoded.pyramid[level] for level in ROI_LEVELS]
        return self.pool(maps, boxes, image_index, self.config.box_head.resolution)

    def _mask_features(self, encoded: Encoded, boxes: Tensor, image_index: Tensor) -> Tensor:
        """Behind the mask head's convolutions: (R, channels, 14, 14)."""
        maps = [encoded.pyramid[level] for level in ROI_LEVELS]
        return self.mask_head.convs(self.pool(maps, boxes, image_index, self.config.mask_head.resolution))

    @torch.no_grad()
    def _sample(self, proposals: list[Tensor], targets: list[dict[str, Any]], sizes: list[tuple[int, int]]) -> Sample:
        """Proposals and the objects' own boxes, matched and drawn."""
        config, boxes, objects, before = self.config.box_head, [], [], 0
        for proposed, target, limit in zip(proposals, targets, image_limits(sizes, proposals[0].device), strict=True):
            own = target["boxes"]
            jittered = clip_boxes(jitter_boxes(own.repeat(config.jittered, 1), config.jitter), limit)
            candidates = torch.cat([proposed, own, jittered])
            matched = match(candidates, own, config.foreground_iou, config.foreground_iou, every_object=False)
            index, counts = draw(matched, config.batch, config.foreground_share)
            index = index[counts]
            boxes.append(candidates[index])
            objects.append(torch.where(matched[index] >= 0, matched[index] + before, -1))
            before += len(own)
        image_index = image_indices([len(part) for part in boxes], boxes[0].device)
        return Sample(torch.cat(boxes), image_index, torch.cat(objects))

    def _box_losses(self, encoded: Encoded, sample: Sample, targets: list[dict[str, Any]]) -> dict[str, Tensor]:
        labels, boxes = (torch.cat([target[key] for target in targets]) for key in ("labels", "boxes"))
        # Background takes the last, made-up object.
        labels = torch.cat([labels, labels.new_full((1,), self.num_classes)])
        boxes = torch.cat([boxes, F.pad(boxes.new_ones(1, 2), (2, 0))])
        logits, deltas = self.box_head(self._box_features(encoded, sample.boxes, sample.image_index))
        return self.box_head.losses(
            logits, deltas, sample.boxes, labels[sample.target_index], boxes[sample.target_index]
        )

    def _foreground(self, encoded: Encoded, sample: Sample) -> tuple[Tensor, RefinerInputs]:
        """The boxes (R, 4) of a sample that have an object, and the same as instances with mask head features."""
        index = (sample.target_index >= 0).nonzero()[:, 0]
        boxes, image_index = sample.boxes[index], sample.image_index[index]
        inputs = self._inputs(encoded, boxes, image_index, self._mask_features(encoded, boxes, image_index))
        return boxes, replace(inputs, target_index=sample.target_index[index])

    def _mask_loss(self, inputs: RefinerInputs, boxes: Tensor, targets: list[dict[str, Any]]) -> Tensor:
        """Binary cross entropy of the object's own class, the mean over all cells of the foreground RoIs."""
        objects = inputs.target_index
        assert objects is not None
        labels = torch.cat([target["labels"] for target in targets])[objects]
        logits = self.mask_head(inputs.feats, labels)
        if len(objects) == 0:  # touches every parameter: no process may wait for this one's gradients
            return logits.sum() + inputs.feats.sum()
        counts = inputs.image_index.bincount(minlength=len(targets)).tolist()
        begins = torch.tensor([len(target["boxes"]) for target in targets]).cumsum(0).tolist()
        within = [part - begin for part, begin in zip(objects.split(counts), [0, *begins[:-1]], strict=True)]
        masks = [target["masks"] for target in targets]
        soft = self.config.mask_head.targets == "soft"
        cut = self.pool.covered(boxes).split(counts)
        wanted = mask_targets(masks, inputs.image_sizes, cut, within, logits.shape[-1], soft)
        return F.binary_cross_entropy_with_logits(logits, wanted)
