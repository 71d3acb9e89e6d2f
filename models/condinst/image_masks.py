"""Soft masks over a whole image, as CondInst predicts them: each cut down to where its object is.

Cell j of such a map stands for the pixel of index stride * j + stride / 2 of the network's input: at stride 4 for the
continuous coordinate 4 j + 2.5, so that its n cells cover [0.5, 4 n + 0.5].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sharpcontour.contours.lazy_masks import LazyMasks

# Cells kept around those above 0.5. A pixel is a mean of three neighbouring cells along an axis, and only one above 0.5
# can lift it above 0.5: two more on either side are all that it takes.
MARGIN = 2


@dataclass
class ImageMasks(LazyMasks):
    """The masks of K instances on images of one padded batch; pasted as CondInst does it.

    For that, a map is enlarged by its stride (:func:`_enlarged`), cut at the image's border and resized to the size
    asked for; the object is above 0.5.

    Attributes:
        parts: K arrays (h, w) float32 on the CPU, the window of each map that its object lies in.
        windows: (K, 4) int64, first column and row of each window, and those behind its last ones.
        cells: (rows, columns) of a whole map.
        sizes: (K, 2) int64, height and width of each instance's image at network-input size, without padding.
        stride: of the maps in network-input pixels, even.
    """

    parts: list[np.ndarray]
    windows: np.ndarray
    cells: tuple[int, int]
    sizes: np.ndarray
    stride: int

    @classmethod
    def from_maps(cls, maps: Tensor, sizes: Sequence[tuple[int, int]], stride: int) -> ImageMasks:
        """Keep the windows of probability maps that objects lie in; only these leave the device.

        Args:
            maps: (K, h, w) probabilities, on any device.
            sizes: (height, width) of each instance's image, without padding.
            stride: of the maps.
        """
        inside = maps > 0.5
        left, right = _span(inside.any(1))
        top, bottom = _span(inside.any(2))
        columns, area = right - left, (right - left) * (bottom - top)
        windows = torch.stack([left, top, right, bottom], 1).cpu().numpy()
        shapes = (windows[:, 2:] - windows[:, :2])[:, ::-1]
        ends = np.cumsum(shapes.prod(1))
        total = int(ends[-1]) if len(ends) else 0
        index = torch.arange(len(maps), device=maps.device).repeat_interleave(area, output_size=total)
        place = torch.arange(total, device=maps.device) - (area.cumsum(0) - area)[index]
        row, column = place // columns[index], place % columns[index]
        values = maps[index, top[index] + row, left[index] + column].float().cpu().numpy()
        parts = [part.reshape(shape) for part, shape in zip(np.split(values, ends[:-1]), shapes, strict=False)]
        cells = (int(maps.shape[1]), int(maps.shape[2]))
        return cls(parts, windows, cells, np.array(sizes, np.int64).reshape(-1, 2), stride)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, part: slice) -> ImageMasks:
        return replace(self, parts=self.parts[part], windows=self.windows[part], sizes=self.sizes[part])

    def scaled(self, sx: float, sy: float, height: int, width: int) -> ImageMasks:
        """These masks as they are, since they are resized to whatever size they are asked for."""
        return self

    def traceable(self) -> tuple[Sequence[np.ndarray], Tensor]:
        """Windows without padding; those at the image's border go on beyond it, so that contours reach the border.

        Paper silent. Cells in the padding would bend the contour inwards before the border: they have learned to be 0.
        """
        inside = np.ceil((self.sizes[:, ::-1] - 0.5) / self.stride - 0.5).astype(np.int64).clip(min=1)
        begin, end = self.windows[:, :2], self.windows[:, 2:]
        first = np.where(begin == 0, -1, begin)
        last = np.where(end >= inside, inside + 1, end)
        gone = (begin >= inside).any(1) | (end == begin).any(1)
        last[gone] = first[gone]
        parts = list(self.parts)
        for k in np.flatnonzero(((first != begin) | (last != end)).any(1)):
            column, row = (np.arange(first[k, i], last[k, i]).clip(0, inside[k, i] - 1) - begin[k, i] for i in (0, 1))
            parts[k] = parts[k][row[:, None], column]
        boxes = np.concatenate([first, last], 1) * self.stride + 0.5
        return parts, torch.from_numpy(boxes.astype(np.float32))

    def _inside(self, values: np.ndarray) -> np.ndarray:
        return values > 0.5

    def _window(self, k: int, height: int, width: int) -> tuple[int, int, np.ndarray]:
        left, top, right, bottom = self.windows[k].tolist()
        size_y, size_x = self.sizes[k].tolist()
        y0, rows = _reached(top, bottom, _enlarged(self.cells[0], self.stride, size_y, height))
        x0, columns = _reached(left, right, _enlarged(self.cells[1], self.stride, size_x, width))
        return x0, y0, rows @ self.parts[k] @ columns.T


def _span(hit: Tensor) -> tuple[Tensor, Tensor]:
    """First True of each row of (K, n) and the place behind the last one, with :data:`MARGIN`; 0 and 0 without any."""
    n, any_hit = hit.shape[1], hit.any(1)
    first = hit.int().argmax(1) - MARGIN
    last = n - hit.flip(1).int().argmax(1) + MARGIN
    return first.clamp(min=0) * any_hit, last.clamp(max=n) * any_hit


def _reached(begin: int, end: int, weights: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[int, np.ndarray]:
    """The first pixel made of the cells from ``begin`` to ``end`` alone, and the weights of all such pixels."""
    matrix, first, last = weights
    low, high = np.searchsorted(first, begin), np.searchsorted(last, end)
    return int(low), matrix[low : max(low, high), begin:end]


@lru_cache(maxsize=16)
def _enlarged(cells: int, stride: int, size: int, pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along one axis: how the pixels of an image are made of a map's cells.

    Linear between the cells, which stand at the indices ``stride * j + stride / 2`` of the network's input and whose
    outermost ones are carried on; then linear between the input's pixels ("bilinear", align_corners=False).

    Args:
        cells: of the map.
        stride: of the map.
        size: of the network's input without padding.
        pixels: of the image.

    Returns:
        (pixels, cells) float32 weights, and of each pixel the first and the last cell whose weight is not 0.
    """
    place = ((np.arange(pixels) + 0.5) * (size / pixels) - 0.5).clip(0, size - 1)
    below = place.astype(np.int64)
    part = place - below
    weights = np.zeros((pixels, cells))
    for index, share in ((below, 1 - part), (np.minimum(below + 1, size - 1), part)):
        at = ((index - stride // 2) / stride).clip(0, cells - 1)
        weights += share[:, None] * np.maximum(1 - np.abs(at[:, None] - np.arange(cells)), 0)
    used = weights > 0
    return weights.astype(np.float32), used.argmax(1), cells - 1 - used[:, ::-1].argmax(1)
