"""Matching of detections with objects as pycocotools does it, over the (image, category) pairs that exist.

Everything lies in flat arrays, category by category and in them image by image: D detections, G objects, E overlaps of
a detection and an object that can match. Results are by A ranges of areas and T thresholds of the IoU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import Params

from data.annotations import Id
from eval.checks import CheckedAnnotation, CheckedDetection, GroundTruth
from sharpcontour.masks.run_lengths import RLE

PARAMS = Params("segm")
"""pycocotools' own thresholds (``iouThrs``, ``recThrs``), ranges of areas (``areaRng``) and limits (``maxDets``)."""
_THRESHOLDS = np.minimum(PARAMS.iouThrs, 1 - 1e-10)  # so that equal masks match at a threshold of 1, too


@dataclass
class Arranged:
    """The detections and the objects of all images, by category, image and then: scores fall, objects as they came.

    Attributes:
        images, categories: their ids in order.
        image, category: (D,) int64 places in these, of each detection.
        rank: (D,) int64 place among the detections of its image and category.
        scores, areas: (D,) float64, areas in pixels.
        rles: D masks.
        truth_image, truth_category: (G,) int64, of each object.
        truth_areas: (G,) float64 pixels, as annotated.
        crowd, own_ignore: (G,) bool.
        truth_rles: G masks.
    """

    images: list[Id]
    categories: list[Id]
    image: np.ndarray
    category: np.ndarray
    rank: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    rles: list[RLE]
    truth_image: np.ndarray
    truth_category: np.ndarray
    truth_areas: np.ndarray
    crowd: np.ndarray
    own_ignore: np.ndarray
    truth_rles: list[RLE]

    def pair(self) -> np.ndarray:
        """(D,) int64, the number of each detection's pair of category and image, ascending."""
        return self.category * len(self.images) + self.image

    def truth_pair(self) -> np.ndarray:
        """(G,) int64, the same of each object."""
        return self.truth_category * len(self.images) + self.truth_image


@dataclass
class Overlaps:
    """Detections and objects of one image and category that overlap enough for the lowest threshold.

    Attributes:
        found, truth: (E,) int64 indices of the detection, ascending, and of the object.
        ious: (E,) float64.
    """

    found: np.ndarray
    truth: np.ndarray
    ious: np.ndarray


@dataclass
class Matches:
    """Which detections have found an object, and what does not count.

    Attributes:
        entries: the detections and objects.
        matched, ignored: (A, T, D) bool.
        truth_ignored: (A, G) bool.
    """

    entries: Arranged
    matched: np.ndarray
    ignored: np.ndarray
    truth_ignored: np.ndarray


def arrange(
    ground_truth: GroundTruth, truths: Sequence[CheckedAnnotation], detections: Sequence[CheckedDetection], limit: int
) -> Arranged:
    """Sort detections and objects by category and image.

    Args:
        ground_truth: has the images and the categories.
        truths: the objects.
        detections: to be scored.
        limit: of detections an image and category; those of the best scores stay, of equal ones the first.
    """
    images, categories = _places(ground_truth.sizes), _places(ground_truth.category_names)
    image = np.array([images[found["image_id"]] for found in detections], np.int64)
    category = np.array([categories[found["category_id"]] for found in detections], np.int64)
    scores = np.array([found["score"] for found in detections], np.float64)
    order = np.lexsort((-scores, image, category))
    rank = _counted(category[order] * len(images) + image[order])
    order, rank = order[rank < limit], rank[rank < limit]
    truth_image = np.array([images[truth["image_id"]] for truth in truths], np.int64)
    truth_category = np.array([categories[truth["category_id"]] for truth in truths], np.int64)
    truth_order = np.lexsort((truth_image, truth_category))
    chosen, objects = [detections[k] for k in order], [truths[k] for k in truth_order]
    return Arranged(
        images=list(images),
        categories=list(categories),
        image=image[order],
        category=category[order],
        rank=rank,
        scores=scores[order],
        areas=np.array([found["area"] for found in chosen], np.float64),
        rles=[found["segmentation"] for found in chosen],
        truth_image=truth_image[truth_order],
        truth_category=truth_category[truth_order],
        truth_areas=np.array([truth["area"] for truth in objects], np.float64),
        crowd=np.array([truth["iscrowd"] for truth in objects], bool),
        own_ignore=np.array([truth["own_ignore"] for truth in objects], bool),
        truth_rles=[truth["segmentation"] for truth in objects],
    )


def _places(ids: Mapping[Id, object]) -> dict[Id, int]:
    """The place of every id in order: numbers before texts."""
    return {key: k for k, key in enumerate(sorted(ids, key=lambda key: (isinstance(key, str), key)))}


def _counted(values: np.ndarray) -> np.ndarray:
    """0, 1, ... along each run of equal values (n,)."""
    new = np.diff(values, prepend=-1) != 0
    return np.arange(len(values)) - np.flatnonzero(new)[np.cumsum(new) - 1]


def mask_overlaps(entries: Arranged) -> Overlaps:
    """Overlaps by mask IoU; of a crowd by the share of the detection that it covers, as COCO has it."""
    pair, truth_pair = entries.pair(), entries.truth_pair()
    rows, columns, ious = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for number in np.intersect1d(pair, truth_pair).tolist():
        (begin, end), (first, last) = (np.searchsorted(of, (number, number + 1)).tolist() for of in (pair, truth_pair))
        crowd = entries.crowd[first:last].tolist()
        values = coco_mask.iou(entries.rles[begin:end], entries.truth_rles[first:last], crowd)
        row, column = np.nonzero(values >= _THRESHOLDS[0])
        rows.append(begin + row)
        columns.append(first + column)
        ious.append(values[row, column])
    return Overlaps(np.concatenate(rows), np.concatenate(columns), np.concatenate(ious))


def match(entries: Arranged, overlaps: Overlaps, ignore: np.ndarray, areas: Iterable[Sequence[float]]) -> Matches:
    """Match detections with objects: the best score first, each with the object of largest IoU that is left.

    Objects that do not count are taken where no other can be, the last one of equal IoUs is, and a crowd by any number.

    Args:
        entries: the detections and objects.
        overlaps: of them.
        ignore: (G,) bool, objects that never count.
        areas: A ranges, from and to in pixels; what lies outside does not count.
    """
    low, high = (limit[:, None] for limit in np.array(list(areas), np.float64).T)
    truth_ignored = ignore | (entries.truth_areas < low) | (entries.truth_areas > high)  # (A, G)
    outside = (entries.areas < low) | (entries.areas > high)
    shape = len(low), len(_THRESHOLDS), len(entries.scores)
    matched, ignored = np.zeros(shape, bool), np.repeat(outside[:, None], shape[1], 1)
    taken = np.zeros((len(ignore), *shape[:2]), bool)
    for edges in _rounds(entries, overlaps):
        found, truth, ious = overlaps.found[edges], overlaps.truth[edges], overlaps.ious[edges][:, None, None]
        new = np.diff(found, prepend=-1) != 0
        starts, segment = np.flatnonzero(new), np.cumsum(new) - 1
        able = (ious >= _THRESHOLDS) & (~taken[truth] | entries.crowd[truth][:, None, None])  # (edges, A, T)
        counts = able & ~truth_ignored.T[truth][:, :, None]
        able = np.where(np.logical_or.reduceat(counts, starts)[segment], counts, able)
        largest = np.maximum.reduceat(np.where(able, ious, -1), starts)[segment]
        index = np.where(able & (ious == largest), np.arange(len(edges))[:, None, None], -1)
        one, area, threshold = np.nonzero((chosen := np.maximum.reduceat(index, starts)) >= 0)
        objects = truth[chosen[one, area, threshold]]
        taken[objects, area, threshold] = True
        matched[area, threshold, found[starts][one]] = True
        ignored[area, threshold, found[starts][one]] = truth_ignored[area, objects]
    return Matches(entries, matched, ignored, truth_ignored)


def _rounds(entries: Arranged, overlaps: Overlaps) -> list[np.ndarray]:
    """Indices of overlaps, those of the first detection of each image and category, of the second, and so on.

    Detections of one round are of different images or categories: none takes an object from another.
    """
    if not len(overlaps.found):
        return []
    able, edges = np.unique(overlaps.found, return_inverse=True)
    turn = _counted(entries.pair()[able])[edges]
    order = np.argsort(turn, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(turn[order])) + 1)
