"""CondInst (conditional convolutions for instance segmentation) with FCOS: a host of section 4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.condinst.config import CondInstConfig, small
from models.condinst.image_masks import ImageMasks
from models.condinst.mask_branch import MaskBranch, semantic_loss
from models.condinst.mask_head import MASK_STRIDE, mask_logits, mask_loss, parameter_count
from models.fcos.detector import FCOSDetections
from models.fcos.host import FCOSHost, Places
from models.layers import in_float32, init_normal
from sharpcontour.host import RefinerInputs, Target


class CondInst(FCOSHost):
    """CondInst on FCOS: a detector, a mask branch and a controller that generates each instance's mask head.

    The pyramid has no P2. The refiner reads C2 and P3, or P3 alone (``config.refiner_maps``).
    """

    title = "CondInst"
    config_type = CondInstConfig
    small = staticmethod(small)
    keep_empty = False
    reach: Tensor

    def __init__(self, config: CondInstConfig, num_classes: int) -> None:
        if config.refiner_maps == "c2_p3":
            super().__init__(config, num_classes, fine="c2", context="p3")
        else:
            super().__init__(config, num_classes, fine="p3")
        self.mask_branch = MaskBranch(config, num_classes)
        # Evaluated at the instances alone: on the 3x3 cells around each it is a product.
        count = parameter_count(config.mask_channels, config.head_channels)
        self.controller = nn.Conv2d(config.backbone.fpn_channels, count, 3)
        init_normal(self.controller)
        # Distances from an instance are measured in the largest one its level learns; the last level has no largest.
        limits = config.fcos.size_limits
        self.register_buffer("reach", torch.tensor([*limits, 2 * limits[-1]]), persistent=False)

    def centres(self, targets: Sequence[Target]) -> list[Tensor]:
        """Objects' centres of mass in pixel indices, as published; of an object without a pixel its box's centre."""
        centres = []
        for target, boxes in zip(targets, super().centres(targets), strict=True):
            mass, area = target["masks"].centres()
            centres.append(torch.where(area[:, None] > 0, mass, boxes))
        return centres

    def shape_losses(
        self, pyramid: dict[str, Tensor], targets: Sequence[Target], inputs: RefinerInputs, places: Places
    ) -> dict[str, Tensor]:
        """Dice loss of the training instances' masks, and the loss of the class maps if these are trained."""
        assert inputs.target_index is not None
        losses = {
            "loss_mask": mask_loss(
                self.mask_branch(pyramid).float(),
                self._theta(inputs.feats),
                places.points,
                self.reach[places.level],
                inputs.image_index,
                inputs.target_index,
                targets,
                self.config.head_channels,
            )
        }
        if self.mask_branch.semantic is not None:
            logits = self.mask_branch.semantic(pyramid["p3"]).float()
            fcos = self.config.fcos
            loss = semantic_loss(logits, targets, fcos.focal_alpha, fcos.focal_gamma)
            losses["loss_semantic"] = self.config.semantic_weight * loss
        return losses

    def shapes(
        self, pyramid: dict[str, Tensor], found: FCOSDetections, inputs: RefinerInputs, places: Places
    ) -> ImageMasks:
        """Soft masks at stride 4, over the whole padded images."""
        features, theta = self.mask_branch(pyramid).float(), self._theta(inputs.feats)
        own = (part.split(found.counts) for part in (theta, places.points, self.reach[places.level]))
        channels = self.config.head_channels
        logits = [mask_logits(f, t, p, r, channels) for f, t, p, r in zip(features, *own, strict=True)]
        maps = torch.cat(logits).sigmoid_()
        sizes = [size for size, count in zip(inputs.image_sizes, found.counts, strict=True) for _ in range(count)]
        return ImageMasks.from_maps(maps, sizes, MASK_STRIDE)

    def _theta(self, feats: Tensor) -> Tensor:
        """(K, C, 3, 3) -> (K, P) float32."""
        return in_float32(self.controller, feats).flatten(1)
