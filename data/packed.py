"""The objects of an annotation file in flat arrays, and those of one image at its training size."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from data.transforms import Crop, Instances, mask_to_crop, polygons_to_crop, resize_mask
from sharpcontour.contours.tracing import trace_mask
from sharpcontour.io.array_file import ArrayFile


@dataclass
class PackedObjects:
    """The objects to train on of all images, in a few flat arrays, in the order of the images.

    Attributes:
        first: (N + 1,) int64, where the objects of each image begin.
        boxes: (A, 4) float32 xyxy, clipped to the image.
        labels: (A,) int64 class indices.
        polygon_first: (A + 1,) int64, where each object's polygons begin; none for run lengths.
        point_first: (R + 1,) int64, where each polygon's points begin in ``points`` (P, 2) float32.
        run_first: (A + 1,) int64, where each object's compressed run lengths begin in ``runs`` (uint8).
        file: what the arrays are mapped from, if they are. Another process that gets the objects maps them too.
    """

    first: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    polygon_first: np.ndarray
    point_first: np.ndarray
    points: np.ndarray
    run_first: np.ndarray
    runs: np.ndarray
    file: ArrayFile | None = None

    def __getstate__(self) -> dict[str, object]:
        return vars(self) if self.file is None else {"file": self.file}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        if self.file is not None:
            arrays = self.file.arrays()
            vars(self).update({name: arrays[name] for name in OBJECT_ARRAYS})

    def instances(self, row: int, original: tuple[int, int], size: tuple[int, int]) -> Instances:
        """The objects of the image in ``row`` of the file, scaled from (height, width) ``original`` to ``size``."""
        scale = np.array([size[1] / original[1], size[0] / original[0]])
        rings, masks, parts = [], [], []
        span = range(int(self.first[row]), int(self.first[row + 1]))
        for k in span:
            if self.run_first[k] == self.run_first[k + 1]:
                object_rings = self._polygons(k, scale)
                masks.append(polygons_to_crop(object_rings, *size))
                parts.append(len(object_rings))
            else:
                object_rings, crop, count = self._from_runs(k, original, size, scale)
                masks.append(crop)
                parts.append(count)
            rings.append(object_rings)
        boxes = (self.boxes[span.start : span.stop] * np.tile(scale, 2)).astype(np.float32)
        labels = self.labels[span.start : span.stop]
        return Instances(boxes, labels, rings, masks, np.array(parts, np.int64))

    def _polygons(self, k: int, scale: np.ndarray) -> list[np.ndarray]:
        first = self.point_first[self.polygon_first[k] : self.polygon_first[k + 1] + 1]
        return [(self.points[a:b] * scale).astype(np.float32) for a, b in pairwise(first)]

    def _from_runs(
        self, k: int, original: tuple[int, int], size: tuple[int, int], scale: np.ndarray
    ) -> tuple[list[np.ndarray], Crop, int]:
        counts = self.runs[self.run_first[k] : self.run_first[k + 1]].tobytes()
        mask = coco_mask.decode({"size": list(original), "counts": counts})
        rings = [(ring * scale).astype(np.float32) for ring in trace_mask(mask)]
        components = cv2.connectedComponents(np.ascontiguousarray(mask), connectivity=8)[0] - 1
        return rings, mask_to_crop(resize_mask(mask, *size)), components


OBJECT_ARRAYS = tuple(one.name for one in fields(PackedObjects) if one.name != "file")
"""The names of the arrays of :class:`PackedObjects`."""
