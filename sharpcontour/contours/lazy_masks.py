"""Soft masks that become pixels only where they are asked for: what a mask host hands to the tracer (section 3.3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sharpcontour.contours.tracing import trace_mask
from sharpcontour.contours.types import Rings
from sharpcontour.masks.run_lengths import RLE, crop_to_rle

if TYPE_CHECKING:
    from torch import Tensor


class LazyMasks(ABC):
    """The soft masks of K instances, which become pixels only where they are asked for, at the size asked for."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, part: slice) -> LazyMasks: ...

    @abstractmethod
    def scaled(self, sx: float, sy: float, height: int, width: int) -> LazyMasks:
        """These masks on an image of another size, ``sx`` and ``sy`` times as large: (height, width) pixels."""

    @abstractmethod
    def traceable(self) -> tuple[Sequence[np.ndarray], Tensor]:
        """K arrays (h, w) to trace contours from, and (K, 4) float32, the boxes that they cover in network pixels."""

    @abstractmethod
    def _window(self, k: int, height: int, width: int) -> tuple[int, int, np.ndarray]:
        """Left column, top row and soft values of all pixels of the image that the object k can reach."""

    @abstractmethod
    def _inside(self, values: np.ndarray) -> np.ndarray:
        """Which of these soft values belong to the object."""

    def rles(self, height: int, width: int) -> list[RLE]:
        """K compressed COCO RLEs of the image."""
        rles = []
        for k in range(len(self)):
            x0, y0, values = self._window(k, height, width)
            rles.append(crop_to_rle(self._inside(values), x0, y0, height, width))
        return rles

    def rings(self, height: int, width: int) -> list[Rings]:
        """K outlines of the pasted masks along their pixels' edges; rasterised they are the same masks."""
        objects = []
        for k in range(len(self)):
            x0, y0, values = self._window(k, height, width)
            objects.append([ring + np.array([x0, y0], np.float32) for ring in trace_mask(self._inside(values))])
        return objects
