"""PointRend with FPN: Mask R-CNN's detector, and masks that are refined where they are uncertain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.backbone import Backbone
from models.pointrend.config import PointRendConfig, small
from models.pointrend.heads import CoarseHead, PointHead
from models.pointrend.points import cell_centres, features_at, in_image, soft_labels, training_points, values_at
from models.two_stage.host import Encoded, RoIs, TwoStage, roi_masks
from sharpcontour.host import Target
from sharpcontour.masks.packed import PackedMasks


class PointRend(TwoStage):
    """PointRend, whose mask branch reads P2 alone: at 14 x 14 places of a box, and at single points.

    The refiner's controller shares the features of the 14 x 14 places.

    Args:
        config: all choices.
        num_classes: of the data set.
    """

    title = "PointRend"
    config_type = PointRendConfig
    small = staticmethod(small)

    def __init__(self, config: PointRendConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        channels, side = config.backbone.fpn_channels, config.coarse_head.resolution
        self.coarse_head = CoarseHead(config.coarse_head, channels, num_classes)
        self.point_head = PointHead(config.point_head, channels, num_classes)
        self.controller_shape = (channels, side, side)

    def mask_features(self, encoded: Encoded, rois: RoIs) -> Tensor:
        """Features of P2 at the centres of 14 x 14 cells of each RoI, (R, channels, 14, 14)."""
        side = self.config.coarse_head.resolution
        cells = cell_centres(side, torch.arange(side**2, device=rois.boxes.device))
        return self._p2(encoded, rois, cells.expand(len(rois.boxes), -1, -1)).unflatten(2, (side, side))

    def mask_losses(
        self, encoded: Encoded, rois: RoIs, features: Tensor, labels: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Binary cross entropy of the object's class, over the coarse cells and over the points.

        The points' labels are bilinear values of the masks, between 0 and 1 along their edges.
        """
        config = self.config.point_head
        coarse = self.coarse_head(features)
        own = coarse[torch.arange(len(labels), device=labels.device), labels]
        places = training_points(own.detach()[:, None], config.train_points, config.oversample, config.importance)
        logits = self._classify(encoded, rois, coarse, labels, places)
        if len(labels) == 0:  # touches every parameter: no process may wait for this one's gradients
            return {"loss_mask": own.sum() + features.sum(), "loss_mask_point": logits.sum()}
        wanted = roi_masks(targets, encoded.sizes, rois, [coarse.shape[-1]])[0]
        masks = PackedMasks.cat([target["masks"] for target in targets])
        assert rois.target_index is not None
        soft = soft_labels(masks, rois.target_index, in_image(places, rois.boxes))
        return {
            "loss_mask": F.binary_cross_entropy_with_logits(own, wanted),
            "loss_mask_point": F.binary_cross_entropy_with_logits(logits, soft),
        }

    def probabilities(self, encoded: Encoded, rois: RoIs, features: Tensor, labels: Tensor) -> Tensor:
        """Soft masks (R, 224, 224) by adaptive subdivision: 28 x 28 cells and the uncertain points are predicted.

        Published as five doublings from 7 x 7; up to 28 x 28 these predict every cell anew.
        """
        config, rows = self.config.point_head, len(labels)
        coarse, side = self.coarse_head(features), config.grid
        cells = torch.arange(side**2, device=labels.device).expand(rows, -1)
        logits = self._classify(encoded, rois, coarse, labels, cell_centres(side, cells)).unflatten(1, (side, side))
        if rows == 0:
            return logits
        for _ in range(config.subdivisions):
            side *= 2
            logits = F.interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False).flatten(1)
            cells = logits.abs().topk(min(config.points, side**2), dim=1, largest=False).indices
            fresh = self._classify(encoded, rois, coarse, labels, cell_centres(side, cells))
            logits = logits.scatter(1, cells, fresh).unflatten(1, (side, side))
        return logits.sigmoid()

    def _classify(self, encoded: Encoded, rois: RoIs, coarse: Tensor, labels: Tensor, places: Tensor) -> Tensor:
        """Logits (R, Q) of points, of the RoIs' classes."""
        return self.point_head(self._p2(encoded, rois, places), values_at(coarse, places), labels)

    def _p2(self, encoded: Encoded, rois: RoIs, places: Tensor) -> Tensor:
        points = in_image(places, rois.boxes)
        return features_at(encoded.pyramid["p2"], Backbone.strides["p2"], rois.image_index, points)
