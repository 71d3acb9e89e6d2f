"""The objects of an annotation file in flat arrays, and those of one image at its training size."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from data.annotations import CocoFile, Entry, Problems
from data.transforms import MIN_BOX, Crop, Instances, mask_to_crop, polygons_to_crop, resize_mask
from sharpcontour.contours.tracing import trace_mask
from sharpcontour.masks.run_lengths import counts_of
from sharpcontour.masks.segmentation import to_rle

MIN_AREA = 1e-6  # px^2: points that span less lie on a line


class PackedObjects:
    """The objects to train on of all images, in a few flat arrays.

    Attributes:
        first: (N + 1,) int64, where the objects of each image begin.
        boxes: (A, 4) float32 xyxy, clipped to the image.
        labels: (A,) int64 class indices.
        polygon_first: (A + 1,) int64, where each object's polygons begin; none for run lengths.
        point_first: (R + 1,) int64, where each polygon's points begin in ``points`` (P, 2) float32.
        run_first: (A + 1,) int64, where each object's compressed run lengths begin in ``runs`` (uint8).
    """

    def __init__(self, file: CocoFile) -> None:
        label_of = {category["id"]: k for k, category in enumerate(file.categories)}
        row_of = {image["id"]: row for row, image in enumerate(file.images)}
        rows, boxes, labels, polygons, polygon_counts, runs = [], [], [], [], [], []
        for annotation in file.annotations:
            if annotation["iscrowd"] or annotation.get("ignore"):
                continue
            row = row_of[annotation["image_id"]]
            size = (int(file.images[row]["height"]), int(file.images[row]["width"]))
            usable = _usable_object(annotation, size, file.problems)
            if usable is None:
                continue
            box, parts, run = usable
            rows.append(row)
            boxes.append(box)
            labels.append(label_of[annotation["category_id"]])
            polygons.append(parts)
            polygon_counts.append(len(parts))
            runs.append(run)
        order = np.argsort(np.array(rows, np.int64), kind="stable")
        flat = [polygon for k in order for polygon in polygons[k]]
        self.first = _starts(np.bincount(np.array(rows, np.int64), minlength=len(file.images)))
        self.boxes = np.array(boxes, np.float32).reshape(-1, 4)[order]
        self.labels = np.array(labels, np.int64)[order]
        self.polygon_first = _starts(np.array(polygon_counts, np.int64)[order])
        self.point_first = _starts(np.array([len(polygon) for polygon in flat], np.int64))
        self.points = np.concatenate(flat) if flat else np.zeros((0, 2), np.float32)
        self.run_first = _starts(np.array([len(run) for run in runs], np.int64)[order])
        self.runs = np.frombuffer(b"".join(runs[k] for k in order), np.uint8)

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


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _usable_object(
    annotation: Entry, size: tuple[int, int], problems: Problems
) -> tuple[tuple[float, ...], list[np.ndarray], bytes] | None:
    """Clipped box, polygons and run lengths (one of these empty) of an object to train on; None, noted, if unusable."""
    where = f"annotation {annotation['id']}"
    x, y, w, h = annotation["bbox"]
    x0, x1 = (min(max(value, 0.0), size[1]) for value in (x, x + w))
    y0, y1 = (min(max(value, 0.0), size[0]) for value in (y, y + h))
    box = (x0, y0, x1, y1)
    if min(x1 - x0, y1 - y0) <= MIN_BOX:
        problems.note("box empty or outside the image, not trained on", where)
        return None
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict):
        return box, [], counts_of(to_rle(segmentation, *size))
    solid = [np.array(polygon, np.float32).reshape(-1, 2) for polygon in segmentation if _has_area(polygon)]
    if not solid:
        problems.note("polygon without an area, not trained on", where)
        return None
    return box, solid, b""


def _has_area(values: list[float]) -> bool:
    """Whether the points do not all lie on one line; the signed area would also be 0 for a figure of eight."""
    x0, y0, x1, y1, x2, y2 = values[:6]
    if abs((x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)) > MIN_AREA:
        return True  # nearly always
    shifted = np.array(values, np.float64).reshape(-1, 2) - values[:2]
    far = shifted[int(np.argmax(np.abs(shifted).sum(1)))]
    return bool((np.abs(shifted[:, 0] * far[1] - shifted[:, 1] * far[0]) > MIN_AREA).any())
