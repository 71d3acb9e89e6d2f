"""Mask R-CNN with FPN, the two-stage host of section 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from models.mask_rcnn.config import MaskRCNNConfig, small
from models.mask_rcnn.mask_head import MaskHead
from models.two_stage.host import Encoded, RoIs, TwoStage, roi_masks
from sharpcontour.host import Target


class MaskRCNN(TwoStage):
    """Mask R-CNN: a proposal network, a box head and a mask head on one pyramid, trained together.

    The controller shares the mask head's features (section 3.3), read behind its convolutions.

    Args:
        config: all choices.
        num_classes: of the data set.
    """

    title = "Mask R-CNN"
    config_type = MaskRCNNConfig
    small = staticmethod(small)

    def __init__(self, config: MaskRCNNConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        self.mask_head = MaskHead(config.mask_head, config.backbone.fpn_channels, num_classes)
        side = config.mask_head.resolution
        self.controller_shape = (config.mask_head.channels, side, side)
        self.paste = config.mask_head.paste

    def mask_features(self, encoded: Encoded, rois: RoIs) -> Tensor:
        """RoI features behind the mask head's convolutions, (R, channels, 14, 14)."""
        return self.mask_head.convs(self.pooled(encoded, rois, self.config.mask_head.resolution))

    def mask_losses(
        self, encoded: Encoded, rois: RoIs, features: Tensor, labels: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Binary cross entropy of the object's own class, the mean over all cells of the RoIs."""
        logits = self.mask_head(features, labels)
        if len(labels) == 0:  # touches every parameter: no process may wait for this one's gradients
            return {"loss_mask": logits.sum() + features.sum()}
        cut = replace(rois, boxes=self.pool.covered(rois.boxes))
        soft = self.config.mask_head.targets == "soft"
        wanted = roi_masks(targets, encoded.sizes, cut, [logits.shape[-1]], soft)[0]
        return {"loss_mask": F.binary_cross_entropy_with_logits(logits, wanted)}

    def probabilities(self, encoded: Encoded, rois: RoIs, features: Tensor, labels: Tensor) -> Tensor:
        """Soft masks (R, 28, 28) inside the RoIs, of the classes ``labels`` (R,)."""
        return self.mask_head(features, labels).sigmoid()
