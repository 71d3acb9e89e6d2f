"""BPR as a module: what it learns of patches, and how it refines the masks of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.bpr.network import BPRConfig, PatchNetwork
from models.bpr.patches import propose

AT_ONCE = 256  # patches of a forward pass


class BPR(nn.Module):
    """Needs nothing but an image and binary masks.

    Args:
        config: all choices.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: BPRConfig) -> None:
        super().__init__()
        self.config = config
        self.network = PatchNetwork(config)
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """Logits (P, 2, S, S) of patches: ``images`` (P, 3, S, S), 0 to 255, and ``masks`` (P, S, S) bool."""
        size = [self.config.size] * 2
        pixels = F.interpolate((images.float() - self.pixel_mean) / self.pixel_std, size, mode="bilinear")
        sign = F.interpolate(2.0 * masks[:, None] - 1, size, mode="nearest")
        logits = self.network(torch.cat([pixels, sign], 1))
        return F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)

    def loss(self, images: Tensor, masks: Tensor, wanted: Tensor) -> Tensor:
        """Cross entropy over all pixels; ``wanted`` (P, S, S) bool is the object in the patch."""
        return F.cross_entropy(self(images, masks), wanted.long())

    @torch.no_grad()
    def refine(self, image: Tensor, masks: Tensor) -> Tensor:
        """(K, H, W) bool masks of one image (3, H, W) uint8 -> the same masks, redrawn along their boundaries."""
        patches = propose(masks, self.config.patch, self.config.nms_test)
        if len(patches.mask) == 0:
            return masks
        pixels = patches.cut(image[None], torch.zeros_like(patches.mask))
        coarse = patches.cut(masks[:, None], patches.mask)[:, 0]
        parts = zip(pixels.split(AT_ONCE), coarse.split(AT_ONCE), strict=True)
        found = [self(part, mask).softmax(1)[:, 1] for part, mask in parts]
        return patches.merge(torch.cat(found), masks)
