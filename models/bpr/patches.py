"""Patches along the boundaries of masks, and how their answers become masks again.

Shapes: K masks of one image, P patches of S x S pixels. Each mask is kept only in the window that its patches can
reach, and the windows of all masks lie one after another in one vector: memory follows the objects, not K images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

from sharpcontour.masks.run_lengths import RLE, crop_to_rle


@dataclass
class Windows:
    """K masks of one image, each in a window of its own.

    Attributes:
        values: (T,) bool, the pixels of all windows, row by row.
        begin: (K,) int64, where each window begins in ``values``.
        corner: (K, 2) int64, x and y of its upper left pixel in the image.
        extent: (K, 2) int64, its width and height; zeros for an empty mask.
        size: (height, width) of the image.
    """

    values: Tensor
    begin: Tensor
    corner: Tensor
    extent: Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.begin)

    def pixels(self, k: int) -> Tensor:
        """The pixels of window k, (h, w) bool."""
        begin, (width, height) = int(self.begin[k]), self.extent[k].tolist()
        return self.values[begin : begin + width * height].view(height, width)

    def rle(self, k: int) -> RLE:
        """Mask k as a compressed COCO RLE of the image."""
        x, y = self.corner[k].tolist()
        return crop_to_rle(self.pixels(k).cpu().numpy(), x, y, *self.size)


@dataclass
class Patches:
    """The places of P patches in an image.

    Attributes:
        corner: (P, 2) int64, x and y of the upper left pixel in the image.
        mask: (P,) int64, the mask of each, ascending.
        side: S.
    """

    corner: Tensor
    mask: Tensor
    side: int

    def cut_image(self, image: Tensor) -> Tensor:
        """Cut all patches out of ``image`` (C, H, W): (P, C, S, S)."""
        row, column = self._pixels(self.corner)
        return image[:, row, column].transpose(0, 1)

    def cut_masks(self, windows: Windows) -> Tensor:
        """Cut every patch out of its own mask: (P, S, S) bool."""
        return windows.values[self._places(windows)]

    def merge(self, probabilities: Tensor, windows: Windows) -> Windows:
        """Put predicted patches back into the masks: foreground is where the patches' mean exceeds one half.

        Pixels that no patch covers stay as they were; all patches weigh the same.

        Args:
            probabilities: (P, S, S) float32, of the foreground.
            windows: the masks before.
        """
        places = self._places(windows).flatten()
        total = probabilities.new_zeros(len(windows.values)).index_add_(0, places, probabilities.flatten())
        count = torch.zeros_like(total).index_add_(0, places, torch.ones_like(places, dtype=total.dtype))
        return replace(windows, values=torch.where(count > 0, total > 0.5 * count, windows.values))

    def _places(self, windows: Windows) -> Tensor:
        """(P, S, S) int64, where the pixels lie in ``windows.values``."""
        row, column = self._pixels(self.corner - windows.corner[self.mask])
        return windows.begin[self.mask, None, None] + row * windows.extent[self.mask, :1, None] + column

    def _pixels(self, corner: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (P, S, 1) and columns (P, 1, S)."""
        step = torch.arange(self.side, device=corner.device)
        return corner[:, 1, None, None] + step[:, None], corner[:, 0, None, None] + step


def open_windows(rles: Sequence[RLE], size: tuple[int, int], side: int) -> Windows:
    """Decode the masks in the windows that patches can reach, one mask at a time.

    Args:
        rles: K compressed COCO RLEs of the image.
        size: (height, width) of the image.
        side: S, pixels.
    """
    corners, extents, parts = [], [], [np.zeros(0, bool)]
    for rle in rles:
        x, y, width, height = (int(value) for value in coco_mask.toBbox(rle))
        if width == 0 or height == 0:
            corners.append((0, 0))
            extents.append((0, 0))
            continue
        (left, right), (top, bottom) = _reach(x, x + width, size[1], side), _reach(y, y + height, size[0], side)
        corners.append((left, top))
        extents.append((right - left, bottom - top))
        parts.append(coco_mask.decode(rle)[top:bottom, left:right].astype(bool).ravel())
    corner, extent = (torch.tensor(pairs, dtype=torch.int64).view(-1, 2) for pairs in (corners, extents))
    area = extent.prod(1)
    return Windows(torch.from_numpy(np.concatenate(parts)), area.cumsum(0) - area, corner, extent, size)


def _reach(start: int, end: int, length: int, side: int) -> tuple[int, int]:
    """Where patches around the boundary of ``start`` to ``end`` can lie on an axis, those moved inside included."""
    low = min(max(start - 1 - side // 2, 0), max(length - side - 1, 0))
    return low, min(max(end + side // 2, side), length)


def propose(windows: Windows, side: int, threshold: float) -> Patches:
    """Propose a patch around every pixel at a boundary, the strongest first, thinned out by non-maximum suppression.

    No pixel is left out before the suppression. What lies outside the image counts as background.

    Args:
        windows: the masks, on the CPU.
        side: S, pixels. Images with a side that is not longer get no patches.
        threshold: IoU above which a patch is suppressed; a higher one leaves more patches that overlap more.
    """
    height, width = windows.size
    corners, scores, index = [torch.zeros(0, 2, dtype=torch.int64)], [torch.zeros(0)], []
    for k in range(len(windows) if min(height, width) > side else 0):
        inside = windows.pixels(k)
        if inside.numel() == 0:
            continue
        # A sum, not a mean times nine: 4 and 5 of nine pixels must tie exactly.
        covered = F.avg_pool2d(inside[None].float(), 3, 1, 1, divisor_override=1)[0]
        strength = torch.minimum(covered, 9 - covered) / 4.5
        y, x = strength.nonzero(as_tuple=True)
        corners.append(torch.stack([x, y], 1) + windows.corner[k] - side // 2)
        scores.append(strength[y, x])
        index.append(torch.full((len(x),), k))
    corner, mask = torch.cat(corners), torch.cat([torch.zeros(0, dtype=torch.int64), *index])
    kept = batched_nms(torch.cat([corner, corner + side], 1).float(), torch.cat(scores), mask, threshold)
    kept = kept[mask[kept].argsort(stable=True)]
    # Moved inside as the original does it, which leaves the last row and column out.
    limit = torch.tensor([width - side, height - side])
    moved = corner[kept].clamp(min=0)
    return Patches(torch.where(moved >= limit, limit - 1, moved), mask[kept], side)
