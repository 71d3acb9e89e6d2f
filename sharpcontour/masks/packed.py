"""Instance masks packed without padding: one flat buffer of box crops.

A (K, H, W) stack of masks is mostly zeros. Cropping every mask to its own pixel box keeps all of its pixels,
takes a fraction of the memory, and lets any set of points look its labels up in one vectorised gather.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor


@dataclass
class PackedMasks:
    """K binary masks of one image, or of a batch after :meth:`cat`.

    Attributes:
        pixels: (S,) uint8, the crops one after another, each row-major; 1 inside the object.
        offsets: (K,) int64, where each crop starts in ``pixels``.
        crops: (K, 4) int64, x0, y0, width, height of each crop in pixels of the image; empty masks have width 0.
    """

    pixels: Tensor
    offsets: Tensor
    crops: Tensor

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def from_crops(cls, parts: Sequence[np.ndarray], crops: np.ndarray) -> PackedMasks:
        """Pack crops that are already cut out; ``parts`` leaves out those whose width and height are 0.

        Args:
            parts: binary arrays (height, width), in the order of ``crops``.
            crops: (K, 4) int, x0, y0, width, height.
        """
        flat = [np.asarray(part, np.uint8).ravel() for part in parts]
        pixels = np.concatenate(flat) if flat else np.zeros(0, np.uint8)
        crops = np.asarray(crops, np.int64).reshape(-1, 4)
        areas = crops[:, 2] * crops[:, 3]
        offsets = np.concatenate([[0], np.cumsum(areas)[:-1]]) if len(areas) else np.zeros(0, np.int64)
        return cls(torch.from_numpy(pixels), torch.from_numpy(offsets.astype(np.int64)), torch.from_numpy(crops))

    @classmethod
    def cat(cls, packs: Sequence[PackedMasks]) -> PackedMasks:
        """Join the masks of several images; every crop keeps the coordinates of its own image."""
        shift, offsets = 0, []
        for pack in packs:
            offsets.append(pack.offsets + shift)
            shift += len(pack.pixels)
        return cls(
            torch.cat([pack.pixels for pack in packs]),
            torch.cat(offsets),
            torch.cat([pack.crops for pack in packs]),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedMasks:
        return PackedMasks(*(t.to(device, non_blocking=non_blocking) for t in (self.pixels, self.offsets, self.crops)))

    def pin_memory(self) -> PackedMasks:
        return PackedMasks(self.pixels.pin_memory(), self.offsets.pin_memory(), self.crops.pin_memory())

    def split(self, size: int) -> list[PackedMasks]:
        """These masks in parts of at most ``size``, whose pixels are not copied; no masks make no part.

        Of more than ``size`` masks this waits for the device.
        """
        starts = [0] if 0 < len(self) <= size else self.offsets[::size].tolist()
        parts = []
        for k, (begin, end) in enumerate(pairwise([*starts, len(self.pixels)])):
            rows = slice(k * size, (k + 1) * size)
            parts.append(PackedMasks(self.pixels[begin:end], self.offsets[rows] - begin, self.crops[rows]))
        return parts

    def crop(self, k: int) -> Tensor:
        """(height, width) uint8, the pixels of mask ``k`` on its crop ``crops[k]``; a view, no copy."""
        _, _, width, height = self.crops[k].tolist()
        offset = int(self.offsets[k])
        return self.pixels[offset : offset + width * height].view(height, width)

    def inside(self, index: Tensor, points: Tensor) -> Tensor:
        """Whether points lie on a mask, by the pixel that holds them.

        Args:
            index: (Q,) int64, which mask each row of points asks.
            points: (Q, P, 2) x, y in continuous image coordinates.

        Returns:
            (Q, P) bool; points off the crop, and so off the image, are outside.
        """
        crop = self.crops[index][:, None]
        column = points[..., 0].floor().long() - crop[..., 0]
        row = points[..., 1].floor().long() - crop[..., 1]
        width, height = crop[..., 2], crop[..., 3]
        on_crop = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        if len(self.pixels) == 0:
            return on_crop
        where = self.offsets[index][:, None] + row * width + column
        return on_crop & self.pixels[where.clamp(0, len(self.pixels) - 1)].bool()

    def centres(self) -> tuple[Tensor, Tensor]:
        """Centres of mass, (K, 2) x, y as means of pixel indices, and areas (K,) int64; an empty mask's centre is 0."""
        _, row, column = self._places()
        parts = torch.stack([column, row, torch.ones_like(row)]) * self.pixels
        # Running sums of whole numbers are exact, and no two threads add to one place, as they would mask by mask.
        running = parts.new_zeros(3, len(row) + 1)
        torch.cumsum(parts, 1, out=running[:, 1:])
        begin, area = self.offsets, self.crops[:, 2] * self.crops[:, 3]
        sums = (running[:, begin + area] - running[:, begin]).T
        return sums[:, :2] / sums[:, 2:].clamp(min=1), sums[:, 2]

    def dense(self, height: int, width: int) -> Tensor:
        """The (K, height, width) bool stack of masks on images of this size; nothing waits for the device."""
        stack = torch.zeros(len(self), height, width, dtype=torch.bool, device=self.pixels.device)
        index, row, column = self._places()
        stack[index, row, column] = self.pixels.bool()
        return stack

    def union(self, height: int, width: int) -> Tensor:
        """(height, width) bool, the pixels of any of the masks; nothing waits for the device."""
        _, row, column = self._places()
        image = torch.zeros(height * width, dtype=torch.uint8, device=self.pixels.device)
        return image.scatter_reduce(0, row * width + column, self.pixels, "amax").view(height, width).bool()

    def _places(self) -> tuple[Tensor, Tensor, Tensor]:
        """The mask of every pixel of the crops (S,), and its row and column in the image."""
        x0, y0, w, h = self.crops.unbind(1)
        device = self.pixels.device
        index = torch.arange(len(self), device=device).repeat_interleave(w * h, output_size=len(self.pixels))
        place = torch.arange(len(self.pixels), device=device) - self.offsets[index]
        return index, y0[index] + place // w[index], x0[index] + place % w[index]
