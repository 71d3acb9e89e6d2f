"""The annotations of a file in flat arrays, made from it piece by piece."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from data.annotations import Category, CocoFile, Entry, Problems, open_coco
from data.packed import PackedObjects
from data.transforms import MIN_BOX
from sharpcontour.io.garbage import without_garbage_collection
from sharpcontour.masks.run_lengths import counts_of
from sharpcontour.masks.segmentation import to_rle

MIN_AREA = 1e-6  # px^2: points that span less lie on a line
BATCH = 4096  # annotations packed at once
NO_BOX = "box empty or outside the image, not trained on"
NO_AREA = "polygon without an area, not trained on"


@dataclass
class PackedAnnotations:
    """What a data set needs of an annotation file.

    Attributes:
        objects: those to train on.
        image_ids: (N,) int64, sorted.
        sizes: (N, 2) int64 height and width of each image.
        names: (N,) bytes, the file names in UTF-8.
        categories: sorted by id.
        problems: what was dropped or mended.
        crowds, ignored: how many annotations are crowd regions, and how many others are marked to be ignored.
    """

    objects: PackedObjects
    image_ids: np.ndarray
    sizes: np.ndarray
    names: np.ndarray
    categories: list[Category]
    problems: Problems
    crowds: int
    ignored: int

    def why_nothing_trains(self) -> str:
        """What became of the annotations of a file that has no object to train on, in words."""
        reasons = []
        if self.crowds:
            reasons.append(f"{self.crowds} x crowd region, not trained on (set iscrowd to 0 where one object is meant)")
        if self.ignored:
            reasons.append(f"{self.ignored} x annotation marked to be ignored")
        if summary := self.problems.summary():
            reasons.append(summary)
        return "; ".join(reasons) or "its list of annotations is empty"


@without_garbage_collection()
def pack_annotations(path: Path) -> PackedAnnotations:
    """Read, check and pack an annotation file.

    Raises:
        InputError: see :func:`data.annotations.open_coco`.
    """
    return _packed(open_coco(path))


def _packed(file: CocoFile) -> PackedAnnotations:
    packer = _Packer(file)
    batch: list[Entry] = []
    crowds = ignored = 0
    for annotation in file.annotations:
        if annotation["iscrowd"]:
            crowds += 1
        elif annotation.get("ignore"):
            ignored += 1
        else:
            batch.append(annotation)
        if len(batch) == BATCH:
            packer.add(batch)
            batch = []
    packer.add(batch)
    file.problems.include(packer.problems)
    names = np.array([image["file_name"].encode("utf-8", "surrogatepass") for image in file.images])
    return PackedAnnotations(
        packer.packed(), packer.image_ids, packer.sizes, names, file.categories, file.problems, crowds, ignored
    )


class _Packer:
    """Packs the objects of a file, which come in its order, in the order of its images."""

    def __init__(self, file: CocoFile) -> None:
        self.problems = Problems()
        self.image_ids = np.array([image["id"] for image in file.images], np.int64)
        self.sizes = np.array([(image["height"], image["width"]) for image in file.images], np.int64)
        self._row_of = {image["id"]: row for row, image in enumerate(file.images)}
        self._label_of = {category["id"]: k for k, category in enumerate(file.categories)}
        # Of each object row of the image, label, polygons and bytes of run lengths; of each polygon its points.
        self._numbers: list[np.ndarray] = []
        self._boxes: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self._points: list[np.ndarray] = []
        self._runs: list[bytes] = []

    def add(self, batch: list[Entry]) -> None:
        """Add checked annotations; what cannot be trained on is noted and left out."""
        rows = np.array([self._row_of[one["image_id"]] for one in batch], np.int64)
        labels = np.array([self._label_of[one["category_id"]] for one in batch], np.int64)
        boxes = _clipped_boxes(batch, self.sizes[rows])
        narrow = (boxes[:, 2:] - boxes[:, :2]).min(1) <= MIN_BOX
        polygons = [one["segmentation"] if isinstance(one["segmentation"], list) else [] for one in batch]
        in_runs = np.array([not part for part in polygons], bool)
        owners = np.repeat(np.arange(len(batch)), np.array([len(part) for part in polygons], np.int64))
        points, counts = _points(list(chain.from_iterable(polygons)))
        solid = _solid(points, counts) & ~narrow[owners]
        parts = np.bincount(owners[solid], minlength=len(batch))
        usable = ~narrow & (in_runs | (parts > 0))
        for k in np.flatnonzero(~usable):
            self.problems.note(NO_BOX if narrow[k] else NO_AREA, f"annotation {batch[k]['id']}")
        runs = [b""] * len(batch)
        for k in np.flatnonzero(usable & in_runs):
            runs[k] = counts_of(to_rle(batch[k]["segmentation"], *self.sizes[rows[k]].tolist()))
        numbers = np.stack([rows, labels, parts, np.array([len(run) for run in runs], np.int64)], 1)
        self._numbers.append(numbers[usable])
        self._boxes.append(boxes[usable].astype(np.float32))
        self._counts.append(counts[solid])
        self._points.append(points[np.repeat(solid, counts)].astype(np.float32))
        self._runs.append(b"".join(runs))

    def packed(self) -> PackedObjects:
        """All objects."""
        rows, labels, parts, lengths = np.concatenate(self._numbers).T
        order = np.argsort(rows, kind="stable")
        counts, points = np.concatenate(self._counts), np.concatenate(self._points)
        self._points.clear()  # so that they are in memory twice at most
        polygon_begins, point_begins, run_begins = _starts(parts), _starts(counts), _starts(lengths)
        object_begins = point_begins[polygon_begins]  # of the points
        return PackedObjects(
            first=_starts(np.bincount(rows, minlength=len(self.image_ids))),
            boxes=np.concatenate(self._boxes)[order],
            labels=labels[order],
            polygon_first=_starts(parts[order]),
            point_first=_starts(_spans(counts, polygon_begins, order)),
            points=_spans(points, object_begins, order),
            run_first=_starts(lengths[order]),
            runs=_spans(np.frombuffer(b"".join(self._runs), np.uint8), run_begins, order),
        )


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _spans(values: np.ndarray, begins: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The spans ``values[begins[k]:begins[k + 1]]`` for every k of ``order``, one after another."""
    counts = np.diff(begins)[order]
    out, place = np.empty((int(counts.sum()), *values.shape[1:]), values.dtype), 0
    for k in range(0, len(order), BATCH):  # the index of all at once would take more memory than the values
        count, begin = counts[k : k + BATCH], begins[order[k : k + BATCH]]
        total = int(count.sum())
        index = np.repeat(begin - np.cumsum(count) + count, count) + np.arange(total)
        out[place : place + total] = values[index]
        place += total
    return out


def _clipped_boxes(batch: list[Entry], sizes: np.ndarray) -> np.ndarray:
    """Boxes x0, y0, x1, y1 (n, 4) float64 of annotations, as far as they are in their images (height, width)."""
    boxes = np.array([one["bbox"] for one in batch], np.float64).reshape(-1, 4)
    with np.errstate(over="ignore"):
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    return np.clip(corners, 0, np.tile(sizes[:, ::-1], 2))


def _points(polygons: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """The points (P, 2) float64 of flat polygons one after another, and how many each has."""
    counts = np.array([len(polygon) for polygon in polygons], np.int64) // 2
    values = np.fromiter(chain.from_iterable(polygons), np.float64, 2 * int(counts.sum()))
    return values.reshape(-1, 2), counts


def _solid(points: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Which polygons have points that do not all lie on one line; the signed area is also 0 for a figure of eight."""
    begins = _starts(counts)
    corner = points[begins[:-1]]
    (x1, y1), (x2, y2) = (points[begins[:-1] + 1] - corner).T, (points[begins[:-1] + 2] - corner).T
    solid = np.abs(x1 * y2 - x2 * y1) > MIN_AREA  # nearly always
    for k in np.flatnonzero(~solid):
        shifted = points[begins[k] : begins[k + 1]] - corner[k]
        far = shifted[int(np.argmax(np.abs(shifted).sum(1)))]
        solid[k] = (np.abs(shifted[:, 0] * far[1] - shifted[:, 1] * far[0]) > MIN_AREA).any()
    return solid
