"""RefineMask with FPN: a two-stage detector whose masks grow finer in stages, fed by a semantic head on P2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.backbone import Backbone
from models.boxes import indexed_boxes
from models.refinemask.config import RefineMaskConfig, small
from models.refinemask.heads import RefineHead, composed, refine_losses
from models.two_stage.host import Encoded, RoIs, TwoStage, roi_masks
from sharpcontour.host import Target


class RefineMask(TwoStage):
    """RefineMask; the refiner's controller shares the RoI features behind the mask branch's first convolutions.

    Args:
        config: all choices.
        num_classes: of the data set.
    """

    title = "RefineMask"
    config_type = RefineMaskConfig
    small = staticmethod(small)

    def __init__(self, config: RefineMaskConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config, head = config, config.refine_head
        self.refine_head = RefineHead(head, config.backbone.fpn_channels, num_classes, Backbone.strides["p2"])
        self.controller_shape = (head.channels, head.resolution, head.resolution)

    def mask_features(self, encoded: Encoded, rois: RoIs) -> Tensor:
        """RoI features behind the mask branch's first convolutions, (R, channels, 14, 14)."""
        return self.refine_head.convs(self.pooled(encoded, rois, self.config.refine_head.resolution))

    def mask_losses(
        self, encoded: Encoded, rois: RoIs, features: Tensor, labels: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """The four stages' loss, and binary cross entropy of the semantic head over all cells of P2."""
        config, semantic = self.config.refine_head, self.refine_head.semantic(encoded.pyramid["p2"])
        logits = self.refine_head(features, semantic, indexed_boxes(rois.boxes, rois.image_index), labels)
        wanted = any_object(targets, encoded.sizes, encoded.padded, semantic.logits)
        losses = {"loss_semantic": F.binary_cross_entropy_with_logits(semantic.logits, wanted)}
        if len(labels) == 0:  # touches every parameter: no process may wait for this one's gradients
            return {**losses, "loss_mask": torch.stack([stage.sum() for stage in logits]).sum() + features.sum()}
        masks = roi_masks(targets, encoded.sizes, rois, [stage.shape[-1] for stage in logits])
        widths = config.learn_width, config.compose_width
        return {**losses, "loss_mask": refine_losses(logits, masks, config.stage_weights, *widths)}

    def probabilities(self, encoded: Encoded, rois: RoIs, features: Tensor, labels: Tensor) -> Tensor:
        """Soft masks (R, 112, 112) inside the RoIs, of the classes ``labels`` (R,)."""
        semantic = self.refine_head.semantic(encoded.pyramid["p2"])
        logits = self.refine_head(features, semantic, indexed_boxes(rois.boxes, rois.image_index), labels)
        return composed(logits, self.config.refine_head.compose_width).sigmoid()


def any_object(
    targets: Sequence[Target], sizes: list[tuple[int, int]], padded: tuple[int, int], like: Tensor
) -> Tensor:
    """Where any object is, 1 or 0, at the size of the semantic head's map: (B, 1, H/4, W/4).

    Args:
        targets: "masks" of each image.
        sizes, padded: (height, width) of each image and of the batch.
        like: the map.
    """
    covered = like.new_zeros(len(targets), 1, *padded)
    for slot, target, (height, width) in zip(covered, targets, sizes, strict=True):
        slot[0, :height, :width] = target["masks"].union(height, width)
    return (F.interpolate(covered, like.shape[2:], mode="bilinear", align_corners=False) >= 0.5).to(like.dtype)
