"""The region proposal network on P2 to P6: objectness and deltas of every anchor, their losses, proposals.

Shapes: B images, A anchors of one image over all levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from models.boxes import clip_boxes, image_limits
from models.host import image_indices
from models.layers import init_normal
from models.two_stage.anchors import Rule, grid_anchors
from models.two_stage.box_coder import decode, encode
from models.two_stage.matching import IGNORED, draw, match
from sharpcontour.errors import InputError
from sharpcontour.host import Target


@dataclass
class RPNConfig:
    """Settings of the region proposal network; the defaults are Detectron2's."""

    num_convs: int = 1  # 3x3, before the two predictions
    sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)  # px, anchors of each level, P2 first
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width of the anchors
    anchors: Rule = "exact"  # see models/two_stage/anchors.py
    inside_only: bool = False  # anchors that cross the image's border do not learn (Detectron)
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    claim_iou: float = 0.0  # from which the anchors that overlap an object most learn, whatever positive_iou is
    claim_seizes: bool = False  # they learn that object even if they overlap another one more (mmdet)
    batch: int = 256  # anchors of an image that learn
    positive_share: float = 0.5  # of them, at most
    loss_beta: float = 0.0  # where the box loss turns from quadratic to linear; 0: L1
    normaliser: Literal["batch", "sampled"] = "batch"  # of the losses: batch * images, or the anchors really sampled
    pre_nms_train: int = 2000  # best anchors of each level and image that may become proposals
    pre_nms_test: int = 1000
    post_nms_train: int = 1000  # proposals of an image
    post_nms_test: int = 1000
    post_nms_together: bool = False  # post_nms_train counts for all images of the process together (Detectron)
    nms_threshold: float = 0.7  # IoU within a level
    nms_score: Literal["logit", "probability"] = "logit"  # probabilities tie near 1
    min_side: float = 1e-10  # px, of a proposal; the default drops empty ones only


@dataclass
class Proposals:
    """The output of the proposal network's head, all levels in one row.

    Attributes:
        logits: (B, A) objectness.
        deltas: (B, A, 4).
        anchors: A boxes as one tensor for each level, in network-input pixels.
    """

    logits: Tensor
    deltas: Tensor
    anchors: list[Tensor]


class RPN(nn.Module):
    """The region proposal network: its head, its losses and its choice of proposals.

    Args:
        config: all choices.
        channels: of the pyramid levels.
        strides: of the pyramid levels, finest first.
    """

    def __init__(self, config: RPNConfig, channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        if len(config.sizes) != len(strides):
            raise InputError(f"rpn.sizes must be {len(strides)} sizes, one for each level, not {len(config.sizes)}")
        self.config, self.strides = config, tuple(strides)
        shapes = len(config.ratios)
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(config.num_convs))
        self.objectness = nn.Conv2d(channels, shapes, 1)
        self.deltas = nn.Conv2d(channels, 4 * shapes, 1)
        init_normal(self)

    def forward(self, maps: Sequence[Tensor], padded: tuple[int, int]) -> Proposals:
        """Objectness and deltas of every anchor.

        Args:
            maps: of the levels, finest first.
            padded: (height, width) of the batch in pixels.
        """
        logits, deltas = [], []
        for x in maps:
            for conv in self.convs:
                x = F.relu(conv(x))
            logits.append(self.objectness(x).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.deltas(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4))
        shapes = [(int(m.shape[2]), int(m.shape[3])) for m in maps]
        config = self.config
        anchors = grid_anchors(
            shapes, self.strides, padded, config.sizes, config.ratios, config.anchors, maps[0].device
        )
        return Proposals(torch.cat(logits, 1).float(), torch.cat(deltas, 1).float(), anchors)

    def losses(self, found: Proposals, targets: Sequence[Target], sizes: list[tuple[int, int]]) -> dict[str, Tensor]:
        """Objectness and box loss of the sampled anchors; nothing waits for the device.

        Args:
            found: the head's output.
            targets: "boxes" (G, 4) of each image.
            sizes: (height, width) of each image without the padding.
        """
        config, anchors = self.config, torch.cat(found.anchors)
        objectness, boxes, sampled = [], [], found.logits.new_zeros(())
        for logits, deltas, target, size in zip(found.logits, found.deltas, targets, sizes, strict=True):
            inside = torch.ones_like(anchors[:, 0], dtype=torch.bool)
            if config.inside_only:
                inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= size[1]) & (anchors[:, 3] <= size[0])
            # Of what lies inside, every object finds its best: the others overlap nothing.
            matched = match(
                torch.where(inside[:, None], anchors, 0.0),
                target["boxes"],
                config.positive_iou,
                config.negative_iou,
                config.claim_iou,
                config.claim_seizes,
            )
            matched = torch.where(inside, matched, IGNORED)
            index, counts = draw(matched, config.batch, config.positive_share)
            positive = (matched[index] >= 0) & counts
            loss = F.binary_cross_entropy_with_logits(logits[index], positive.float(), reduction="none")
            objectness.append((loss * counts).sum())
            boxes.append(self._box_loss(deltas[index], anchors[index], target["boxes"], matched[index], positive))
            sampled = sampled + counts.sum()
        total = sampled.clamp(min=1.0) if config.normaliser == "sampled" else config.batch * len(sizes)
        return {"loss_rpn_cls": torch.stack(objectness).sum() / total, "loss_rpn_loc": torch.stack(boxes).sum() / total}

    def _box_loss(self, deltas: Tensor, anchors: Tensor, objects: Tensor, matched: Tensor, positive: Tensor) -> Tensor:
        if len(objects) == 0:
            return deltas.sum() * 0.0
        wanted = encode(objects[matched.clamp(min=0)], anchors)
        wanted = torch.where(positive[:, None], wanted, 0.0)  # an anchor far from its object may give infinity
        loss = F.smooth_l1_loss(deltas, wanted, beta=self.config.loss_beta, reduction="none")
        return torch.where(positive[:, None], loss, 0.0).sum()

    @torch.no_grad()
    def propose(self, found: Proposals, sizes: list[tuple[int, int]]) -> list[Tensor]:
        """The best boxes (P, 4) of each image, clipped to it, best first. P varies, so this waits for the device."""
        config = self.config
        before, after = (
            (config.pre_nms_train, config.post_nms_train)
            if self.training
            else (config.pre_nms_test, config.post_nms_test)
        )
        boxes, scores, counts = self._candidates(found, before)
        boxes = clip_boxes(boxes, image_limits(sizes, boxes.device)[:, None])
        usable = ((boxes[..., 2:] - boxes[..., :2]) >= config.min_side).all(-1) & scores.isfinite()
        # What is not usable stays in its place as a point, which overlaps nothing: to leave it out is to wait for it.
        solid = torch.where(usable[..., None], boxes, 0.0)
        kept = kept_by_nms(solid, scores, counts, config.nms_threshold, together=boxes.device.type != "cpu")
        best, order = torch.where(kept & usable, scores, -math.inf).sort(descending=True, stable=True)
        ends = (best > -math.inf).sum(1).clamp(max=after).tolist()
        chosen = [index[:end] for index, end in zip(order, ends, strict=True)]
        if self.training and config.post_nms_together:
            chosen = _best_together(scores, chosen, after)
        return [box[index] for box, index in zip(boxes, chosen, strict=True)]

    def _candidates(self, found: Proposals, count: int) -> tuple[Tensor, Tensor, list[int]]:
        """Boxes (B, Q, 4) and scores (B, Q) of the best anchors, level after level, and how many of each level."""
        boxes, scores, begin = [], [], 0
        for anchors in found.anchors:
            part = slice(begin, begin + len(anchors))
            begin += len(anchors)
            best, index = found.logits[:, part].topk(min(count, len(anchors)), dim=1)
            deltas = found.deltas[:, part].gather(1, index[..., None].expand(-1, -1, 4))
            boxes.append(decode(deltas, anchors[index]))
            scores.append(best)
        together = torch.cat(scores, 1)
        if self.config.nms_score == "probability":
            together = together.sigmoid()
        return torch.cat(boxes, 1), together, [score.shape[1] for score in scores]


def kept_by_nms(boxes: Tensor, scores: Tensor, counts: list[int], threshold: float, together: bool) -> Tensor:
    """Which boxes non-maximum suppression within each level of each image keeps.

    Args:
        boxes: (B, Q, 4), not negative, level after level.
        scores: (B, Q).
        counts: boxes of each level.
        threshold: IoU.
        together: all levels of an image in one call, moved apart: a GPU is waited for once an image, not once a level,
            at the cost of coordinates rounded to a fraction of a thousandth of a pixel and of more pairs to compare.

    Returns:
        (B, Q) bool.
    """
    if together:
        level = image_indices(counts, boxes.device)
        boxes = boxes + (level * (boxes.amax() + 1))[:, None]
        counts = [sum(counts)]
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for image in range(len(boxes)):
        parts = (part[image].split(counts) for part in (boxes, scores, kept))
        for box, score, keep in zip(*parts, strict=True):
            keep[nms(box, score, threshold)] = True
    return kept


def _best_together(scores: Tensor, kept: list[Tensor], count: int) -> list[Tensor]:
    """The ``count`` kept places with the best scores of all images together; within an image they keep their order."""
    together = torch.cat([score[index] for score, index in zip(scores, kept, strict=True)])
    chosen = torch.zeros(len(together), dtype=torch.bool, device=together.device)
    chosen[together.topk(min(count, len(together))).indices] = True
    return [index[part] for index, part in zip(kept, chosen.split([len(index) for index in kept]), strict=True)]
