"""BPR as a module: what it learns of patches, and how it refines the masks of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.bpr.network import BPRConfig, PatchNetwork
from models.bpr.patches import Patches, open_windows, propose
from sharpcontour.masks.run_lengths import RLE

AT_ONCE = 128  # patches of a forward pass: the widest map of so many takes 64 MiB


class BPR(nn.Module):
    """Boundary patch refinement, which needs nothing but an image and binary masks.

    The preparation of patches, the loss and the reassembly are the published ones.

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
    def refine(self, image: Tensor, masks: Sequence[RLE]) -> list[RLE]:
        """Redraw masks along their boundaries, those of all instances of an image in one batch of patches.

        Args:
            image: (3, H, W) uint8 RGB.
            masks: K compressed COCO RLEs of it.

        Returns:
            K compressed COCO RLEs in the same order; ``masks[k]`` itself where there is no patch: an empty mask, or an
            image with a side of at most ``config.patch``.
        """
        size, device = (image.shape[1], image.shape[2]), self.pixel_mean.device
        windows = open_windows(masks, size, self.config.patch)
        patches = propose(windows, self.config.patch, self.config.nms_test)
        image, found = image.to(device), []
        for corner, index in zip(patches.corner.split(AT_ONCE), patches.mask.split(AT_ONCE), strict=True):
            part = Patches(corner, index, patches.side)
            pixels = replace(part, corner=corner.to(device)).cut_image(image)
            found.append(self(pixels, part.cut_masks(windows).to(device)).softmax(1)[:, 1].cpu())
        if len(patches.mask) == 0:
            return list(masks)
        merged, seen = patches.merge(torch.cat(found), windows), set(patches.mask.tolist())
        return [merged.rle(k) if k in seen else mask for k, mask in enumerate(masks)]
