"""Soft masks inside boxes, as mask heads predict them, and how they are pasted into an image.

Pasting is what a host does without the refiner; contours are traced from the soft masks themselves (section 3.3).
Only the window around an object is ever made, not the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import Tensor

from sharpcontour.contours.lazy_masks import LazyMasks

Paste = Literal["centre", "integer"]
"""centre: every pixel centre looks the mask up where it lies in the box; the object begins at 0.5 (Detectron2).
integer: the mask, framed by zeros, is resized to a box of whole pixels; the object is above 0.5 (torchvision)."""


@dataclass
class SoftMasks(LazyMasks):
    """The masks of K instances inside their boxes on one image, as mask heads of two-stage models predict them.

    Attributes:
        probabilities: (K, h, w) float32 on the CPU.
        boxes: (K, 4) float32 on the CPU, xyxy that the masks cover, in pixels of the image.
        paste: see :data:`Paste`.
    """

    probabilities: Tensor
    boxes: Tensor
    paste: Paste = "centre"

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, part: slice) -> SoftMasks:
        return replace(self, probabilities=self.probabilities[part], boxes=self.boxes[part])

    def scaled(self, sx: float, sy: float, height: int, width: int) -> SoftMasks:
        """These masks on an image of another size, ``sx`` and ``sy`` times as large; boxes are clipped to it."""
        boxes = self.boxes * self.boxes.new_tensor([sx, sy, sx, sy])
        return replace(self, boxes=boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height])))

    def traceable(self) -> tuple[Sequence[np.ndarray], Tensor]:
        return list(self.probabilities.numpy()), self.boxes

    def _inside(self, values: np.ndarray) -> np.ndarray:
        return values >= 0.5 if self.paste == "centre" else values > 0.5

    def _window(self, k: int, height: int, width: int) -> tuple[int, int, np.ndarray]:
        mask = self.probabilities[k].numpy()
        x0, y0, x1, y1 = self.boxes[k].numpy()  # float32, as the originals compute
        if self.paste == "centre":
            left, columns = _at_centres(x0, x1, mask.shape[1], width)
            top, rows = _at_centres(y0, y1, mask.shape[0], height)
        else:
            left, columns = _in_whole_pixels(x0, x1, mask.shape[1], width)
            top, rows = _in_whole_pixels(y0, y1, mask.shape[0], height)
        return left, top, rows @ mask @ columns.T


def _at_centres(low: np.float32, high: np.float32, cells: int, size: int) -> tuple[int, np.ndarray]:
    """Along one axis: the first pixel reached, and (pixels, cells) linear weights; beyond the mask lies zero."""
    if not high > low:
        return 0, np.zeros((0, cells), np.float32)
    margin = (high - low) / cells / 2 + 1  # zeros begin half a cell outside
    first, last = max(int(low - margin), 0), min(int(high + margin) + 1, size)
    centre = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    return first, _weights((centre - low) / (high - low) * np.float32(cells) - np.float32(0.5), cells)


def _in_whole_pixels(low: np.float32, high: np.float32, cells: int, size: int) -> tuple[int, np.ndarray]:
    """Along one axis of a mask framed by zeros in a box of whole pixels: first pixel, and (pixels, cells) weights.

    The box is cut off at the image.
    """
    middle = (high + low) * np.float32(0.5)
    half = (high - low) * np.float32(0.5) * np.float32((cells + 2) / cells)
    first, last = int(middle - half), int(middle + half)  # towards zero
    pixels = max(last - first + 1, 1)
    place = (np.arange(pixels, dtype=np.float32) + np.float32(0.5)) * np.float32((cells + 2) / pixels)
    # Beyond the outermost cells of the frame its border, which is zero, goes on.
    weights = _weights(place - np.float32(1.5), cells)
    begin = max(first, 0)
    return begin, weights[begin - first : max(min(first + pixels, size), begin) - first]


def _weights(place: np.ndarray, cells: int) -> np.ndarray:
    """(P, cells) of linear interpolation at P places, the first cell's centre at 0; zero beyond."""
    return np.maximum(1 - np.abs(place[:, None] - np.arange(cells, dtype=np.float32)), 0)
