"""Patches along the boundary of a mask, and how their answers become a mask again.

Shapes: K masks of one image, P patches of S x S pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

AT_ONCE = 1 << 24  # pixels of masks searched together


@dataclass
class Patches:
    """Where patches lie.

    Attributes:
        corner: (P, 2) int64, x and y of the upper left pixel.
        mask: (P,) int64, the mask of each, ascending.
        side: S.
    """

    corner: Tensor
    mask: Tensor
    side: int

    def cut(self, images: Tensor, index: Tensor) -> Tensor:
        """(P, C, S, S) of ``images`` (N, C, H, W), patch p of image ``index[p]``."""
        row, column = self._pixels()
        return images[index[:, None, None], :, row, column].permute(0, 3, 1, 2)

    def _pixels(self) -> tuple[Tensor, Tensor]:
        """Rows (P, S, 1) and columns (P, 1, S)."""
        step = torch.arange(self.side, device=self.corner.device)
        return self.corner[:, 1, None, None] + step[:, None], self.corner[:, 0, None, None] + step

    def merge(self, probabilities: Tensor, masks: Tensor) -> Tensor:
        """(K, H, W) bool: above one half on average where patches lie, and as it was elsewhere.

        Args:
            probabilities: (P, S, S) of the foreground.
            masks: (K, H, W) bool, before.
        """
        row, column = self._pixels()
        place = (self.mask[:, None, None], row, column)
        total = torch.zeros(masks.shape, device=masks.device).index_put(place, probabilities, accumulate=True)
        count = torch.zeros_like(total).index_put(place, torch.ones_like(probabilities), accumulate=True)
        return torch.where(count > 0, total > 0.5 * count, masks)


def propose(masks: Tensor, side: int, threshold: float) -> Patches:
    """A patch around every pixel at a boundary, the straightest first, thinned out by non-maximum suppression.

    Args:
        masks: (K, H, W) bool; what lies outside the image counts as background.
        side: S, pixels. Images that are not larger get no patches.
        threshold: IoU from which a patch is suppressed; a higher one leaves more patches that overlap more.
    """
    k, height, width = masks.shape
    if k == 0 or min(height, width) <= side:
        nothing = torch.zeros(0, dtype=torch.int64, device=masks.device)
        return Patches(nothing.view(0, 2), nothing, side)
    boxes, scores, index = [], [], []
    rows = max(AT_ONCE // (height * width), 1)
    for begin in range(0, k, rows):
        covered = 9 * F.avg_pool2d(masks[begin : begin + rows, None].float(), 3, 1, 1)[:, 0]
        strength = torch.minimum(covered, 9 - covered) / 4.5
        mask, y, x = (strength > 1e-3).nonzero(as_tuple=True)
        scores.append(strength[mask, y, x])
        boxes.append(torch.stack([x - side // 2, y - side // 2, x + side // 2, y + side // 2], 1))
        index.append(mask + begin)
    box, mask = torch.cat(boxes), torch.cat(index)
    kept = batched_nms(box.float(), torch.cat(scores), mask, threshold)
    kept = kept[mask[kept].argsort(stable=True)]
    # Moved inside as the original does it, which leaves the last row and column out.
    limit = torch.tensor([width - side, height - side], device=masks.device)
    corner = box[kept, :2].clamp(min=0)
    corner = torch.where(corner >= limit, limit - 1, corner)
    return Patches(corner, mask[kept], side)
