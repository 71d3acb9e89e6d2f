"""What the two-stage models have in common: proposals, a box head, and a mask branch that each brings along.

Mask R-CNN (the host of section 4) and its rivals PointRend and RefineMask differ in that branch alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from models.backbone import Backbone, BackboneConfig, small_body
from models.boxes import clip_boxes, counts_of, image_limits, indexed_boxes, jitter_boxes
from models.host import HostBase, image_indices, per_image
from models.two_stage.matching import draw, match
from models.two_stage.roi import BoxHead, BoxHeadConfig, Pool, PoolConfig
from models.two_stage.rpn import RPN, Proposals, RPNConfig
from models.two_stage.soft_masks import Paste, SoftMasks
from sharpcontour.detections import Detections
from sharpcontour.host import RefinerInputs, Target, at_least_one_pixel
from sharpcontour.io.device import to_cpu

PROPOSAL_LEVELS = ("p2", "p3", "p4", "p5", "p6")
ROI_LEVELS = ("p2", "p3", "p4", "p5")
_AT_ONCE = 32  # objects whose masks are made at a time, at the size of their image: 4 bytes a pixel and object


@dataclass
class TwoStageConfig:
    """Settings of the detector in front of a mask branch; the defaults are Detectron2's on torchvision's ResNet-50."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    rpn: RPNConfig = field(default_factory=RPNConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    box_head: BoxHeadConfig = field(default_factory=BoxHeadConfig)


def small_detector(config: TwoStageConfig) -> None:
    """Make the detector of ``config`` one for the built-in shapes, whose objects are smaller than COCO's."""
    config.backbone = small_body()
    rpn, box = config.rpn, config.box_head
    rpn.sizes = (16.0, 32.0, 64.0, 128.0, 256.0)  # px
    rpn.batch, rpn.pre_nms_train, rpn.pre_nms_test = 128, 300, 300
    rpn.post_nms_train, rpn.post_nms_test = 100, 100
    box.channels, box.batch, box.foreground_share = 256, 48, 0.5


@dataclass
class Encoded:
    """A batch behind the backbone: pyramid levels by name, (height, width) of each image and of the padded batch."""

    pyramid: dict[str, Tensor]
    sizes: list[tuple[int, int]]
    padded: tuple[int, int]


@dataclass
class RoIs:
    """RoIs of a batch, image after image.

    Attributes:
        boxes: (R, 4) network-input pixels.
        image_index: (R,) int64.
        target_index: training only, (R,) int64, the object, counted through the targets of the batch; -1: background.
    """

    boxes: Tensor
    image_index: Tensor
    target_index: Tensor | None = None


class TwoStage(HostBase):
    """Proposal network, box head and a mask branch on one pyramid, trained together.

    The refiner reads P2, the highest-resolution level (section 3.2); the controller shares the mask branch's features
    of a RoI (section 3.3). A model brings ``mask_features``, ``mask_losses`` and ``probabilities``.

    Args:
        config: all choices; what the mask branch needs beside a :class:`TwoStageConfig` too.
        num_classes: of the data set.
    """

    base_lr = 0.02
    keep_empty = False
    paste: Paste = "centre"

    def __init__(self, config: TwoStageConfig, num_classes: int) -> None:
        super().__init__(config.backbone)
        self.num_classes, self._box_config = num_classes, config.box_head
        self.backbone = Backbone(config.backbone, top="pool")
        channels = config.backbone.fpn_channels
        self.rpn = RPN(config.rpn, channels, [Backbone.strides[level] for level in PROPOSAL_LEVELS])
        self.pool = Pool(config.pool, [Backbone.strides[level] for level in ROI_LEVELS])
        self.box_head = BoxHead(config.box_head, channels, num_classes)
        self.fine_channels = channels

    def mask_features(self, encoded: Encoded, rois: RoIs) -> Tensor:
        """What the mask branch sees of every RoI, (R, *controller_shape)."""
        raise NotImplementedError

    def mask_losses(
        self, encoded: Encoded, rois: RoIs, features: Tensor, labels: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Losses of RoIs that all have an object, of the classes ``labels`` (R,); R may be 0."""
        raise NotImplementedError

    def probabilities(self, encoded: Encoded, rois: RoIs, features: Tensor, labels: Tensor) -> Tensor:
        """Soft masks inside the RoIs, (R, S, S) float32 in [0, 1], of the classes ``labels`` (R,)."""
        raise NotImplementedError

    def encode(self, images: list[Tensor]) -> Encoded:
        """Everything that does not depend on boxes."""
        batch, sizes = self.batch(images)
        return Encoded(self.backbone(batch), sizes, (int(batch.shape[2]), int(batch.shape[3])))

    def describe(self, encoded: Encoded, boxes: list[Tensor]) -> RefinerInputs:
        """The mask branch's features of boxes from anywhere, (K_i, 4) of each image."""
        device = encoded.pyramid["p2"].device
        together = torch.cat(boxes).to(device, torch.float32)
        rois = RoIs(together, image_indices([len(part) for part in boxes], device))
        return self._inputs(encoded, rois, self.mask_features(encoded, rois))

    def losses(self, images: list[Tensor], targets: Sequence[Target]) -> tuple[dict[str, Tensor], RefinerInputs]:
        """Proposal, box and mask losses; instances are the RoIs that train the mask branch."""
        encoded = self.encode(images)
        proposed = self._propose(encoded)
        losses = self.rpn.losses(proposed, targets, encoded.sizes)
        sample = self._sample(self.rpn.propose(proposed, encoded.sizes), targets, encoded.sizes)
        labels, boxes = self._objects(sample, targets)
        logits, deltas = self.box_head(self._box_features(encoded, sample))
        losses.update(self.box_head.losses(logits, deltas, sample.boxes, labels, boxes))
        if self._box_config.masks_on_predictions:
            sample.boxes = self.box_head.predicted(deltas, sample.boxes, labels)
        inputs, branch = self._learn_masks(encoded, sample, targets)
        losses.update(branch)
        return losses, inputs

    def training_instances(self, images: list[Tensor], targets: Sequence[Target]) -> RefinerInputs:
        """The training instances for the refiner: the RoIs that train the mask branch."""
        encoded = self.encode(images)
        proposals = self.rpn.propose(self._propose(encoded), encoded.sizes)
        sample = self._sample(proposals, targets, encoded.sizes)
        if self._box_config.masks_on_predictions:
            deltas = self.box_head(self._box_features(encoded, sample))[1]
            sample.boxes = self.box_head.predicted(deltas, sample.boxes, self._objects(sample, targets)[0])
        rois = _inside(encoded, _with_object(sample))
        return self._inputs(encoded, rois, self.mask_features(encoded, rois))

    @torch.no_grad()
    def detect(self, images: list[Tensor]) -> tuple[list[Detections], RefinerInputs]:
        """Detections with soft masks; these are pasted where pixels are asked for, at the size asked for."""
        encoded = self.encode(images)
        proposals = self.rpn.propose(self._propose(encoded), encoded.sizes)
        device = proposals[0].device
        rois = RoIs(torch.cat(proposals), image_indices([len(part) for part in proposals], device))
        logits, deltas = self.box_head(self._box_features(encoded, rois))
        found = self.box_head.detect(logits, deltas, proposals, encoded.sizes)
        counts = [len(scores) for _, scores, _ in found]
        boxes, scores, labels = (torch.cat(part) for part in zip(*found, strict=True))
        rois = RoIs(boxes, image_indices(counts, device))
        features = self.mask_features(encoded, rois)
        inputs = self._inputs(encoded, rois, features)
        probabilities = self.probabilities(encoded, rois, features, labels)
        boxes, scores, labels = to_cpu(boxes, scores, labels)
        inputs.soft_masks = SoftMasks(probabilities.cpu(), self.pool.covered(boxes), self.paste)
        return per_image(boxes, scores, labels, inputs.soft_masks, counts, encoded.sizes), inputs

    def pooled(self, encoded: Encoded, rois: RoIs, size: int) -> Tensor:
        """RoI features (R, channels, size, size) from the levels that suit the boxes."""
        return self.pool([encoded.pyramid[level] for level in ROI_LEVELS], rois.boxes, rois.image_index, size)

    def _propose(self, encoded: Encoded) -> Proposals:
        return self.rpn([encoded.pyramid[level] for level in PROPOSAL_LEVELS], encoded.padded)

    def _box_features(self, encoded: Encoded, rois: RoIs) -> Tensor:
        return self.pooled(encoded, rois, self._box_config.resolution)

    def _inputs(self, encoded: Encoded, rois: RoIs, features: Tensor) -> RefinerInputs:
        return RefinerInputs(
            fine=encoded.pyramid["p2"],
            stride=Backbone.strides["p2"],
            boxes=_inside(encoded, rois).boxes.detach(),
            image_index=rois.image_index,
            feats=features,
            image_sizes=encoded.sizes,
            target_index=rois.target_index,
        )

    @torch.no_grad()
    def _sample(self, proposals: list[Tensor], targets: Sequence[Target], sizes: list[tuple[int, int]]) -> RoIs:
        """Proposals and the objects' own boxes, matched and drawn."""
        config, boxes, objects, taken, before = self._box_config, [], [], [], 0
        for proposed, target, limit in zip(proposals, targets, image_limits(sizes, proposals[0].device), strict=True):
            own = target["boxes"]
            jittered = clip_boxes(jitter_boxes(own.repeat(config.jittered, 1), config.jitter), limit)
            candidates, least = torch.cat([proposed, jittered, own]), config.foreground_iou
            if config.claim_seizes:  # before the objects' own boxes join in, which would claim themselves
                others = match(candidates[: len(candidates) - len(own)], own, least, least, claim=least, seize=True)
                matched = torch.cat([others, torch.arange(len(own), device=own.device)])
            else:
                matched = match(candidates, own, least, least)
            index, counts = draw(matched, config.batch, config.foreground_share)
            taken.append(counts)
            boxes.append(candidates[index])
            objects.append(torch.where(matched[index] >= 0, matched[index] + before, -1))
            before += len(own)
        image_index = image_indices([len(part) for part in boxes], boxes[0].device)
        chosen = torch.cat(taken).nonzero()[:, 0]  # of all images at once: one wait
        return RoIs(torch.cat(boxes)[chosen], image_index[chosen], torch.cat(objects)[chosen])

    def _objects(self, sample: RoIs, targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
        """Labels (R,), C for background, and boxes (R, 4) of the objects of a sample."""
        labels, boxes = (torch.cat([target[key] for target in targets]) for key in ("labels", "boxes"))
        # Background takes the last, made-up object.
        labels = torch.cat([labels, labels.new_full((1,), self.num_classes)])
        boxes = torch.cat([boxes, F.pad(boxes.new_ones(1, 2), (2, 0))])
        return labels[sample.target_index], boxes[sample.target_index]

    def _learn_masks(
        self, encoded: Encoded, sample: RoIs, targets: Sequence[Target]
    ) -> tuple[RefinerInputs, dict[str, Tensor]]:
        """The RoIs of a sample that have an object, as the refiner's instances, and the mask branch's losses."""
        rois = _with_object(sample)
        features = self.mask_features(encoded, rois)
        labels = torch.cat([target["labels"] for target in targets])[rois.target_index]
        losses = self.mask_losses(encoded, rois, features, labels, targets)
        if self._box_config.masks_on_predictions:  # which may leave the image; the refiner's instances never do
            rois = _inside(encoded, rois)
            features = self.mask_features(encoded, rois)
        return self._inputs(encoded, rois, features), losses


def _with_object(sample: RoIs) -> RoIs:
    assert sample.target_index is not None
    index = (sample.target_index >= 0).nonzero()[:, 0]
    return replace(
        sample,
        boxes=sample.boxes[index],
        image_index=sample.image_index[index],
        target_index=sample.target_index[index],
    )


def _inside(encoded: Encoded, rois: RoIs) -> RoIs:
    """RoIs whose boxes are cut at the borders of their images, every side one pixel long at least."""
    limits = image_limits(encoded.sizes, rois.boxes.device)[rois.image_index]
    return replace(rois, boxes=at_least_one_pixel(rois.boxes, limits))


def roi_masks(
    targets: Sequence[Target], sizes: list[tuple[int, int]], rois: RoIs, sides: Sequence[int], soft: bool = False
) -> list[Tensor]:
    """What mask branches learn: the objects' masks averaged over the cells of their RoIs, R > 0.

    Args:
        targets: "masks" and "boxes" of each image.
        sizes: (height, width) of each image.
        rois: with their objects.
        sides: cells along a side, of each of the results.
        soft: the average itself, sampled as torchvision does; otherwise 1 from 0.5 on, sampled as Detectron2 does.

    Returns:
        (R, side, side) for each of ``sides``.
    """
    assert rois.target_index is not None
    order = rois.target_index.argsort(stable=True)  # object after object, of which only some are made at a time
    stacks = [
        (part, size) for target, size in zip(targets, sizes, strict=True) for part in target["masks"].split(_AT_ONCE)
    ]
    counts = iter(counts_of(rois.target_index, sum(len(part) for part, _ in stacks)))
    of_stack = [sum(islice(counts, len(part))) for part, _ in stacks]
    parts: list[list[Tensor]] = [[] for _ in sides]
    before = 0
    for (masks, size), mine in zip(stacks, order.split(of_stack), strict=True):
        if len(mine):
            image = masks.dense(*size).to(rois.boxes.dtype)[:, None]
            cut = indexed_boxes(rois.boxes[mine], rois.target_index[mine] - before)
            for part, side in zip(parts, sides, strict=True):
                part.append(roi_align(image, cut, side, 1.0, -1, aligned=not soft)[:, 0])
        before += len(masks)
    back = order.argsort()
    covered = [torch.cat(part)[back] for part in parts]
    return covered if soft else [(share >= 0.5).to(share.dtype) for share in covered]
