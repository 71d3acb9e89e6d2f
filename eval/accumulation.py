"""Precision and recall from matches, as pycocotools accumulates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data.annotations import Id
from eval.matching import PARAMS, Matches


@dataclass
class Curves:
    """Precision and recall of K categories at T thresholds of the IoU and A ranges of areas; -1 without objects.

    Attributes:
        precision: (T, R, K, A), at R recalls.
        recall: (T, K, A, M), of the M best detections an image and category.
        categories: K ids.
    """

    precision: np.ndarray
    recall: np.ndarray
    categories: list[Id]


def accumulate(matches: Matches, limits: Sequence[int]) -> Curves:
    """Precision and recall of all detections; recall also of fewer.

    Args:
        matches: of all images.
        limits: M numbers of detections an image and category, for the recall.
    """
    entries, recalls = matches.entries, PARAMS.recThrs
    areas, thresholds = matches.matched.shape[:2]
    precision = -np.ones((thresholds, len(recalls), len(entries.categories), areas))
    recall = -np.ones((thresholds, len(entries.categories), areas, len(limits)))
    for k in np.unique(entries.truth_category).tolist():
        found, truth = (
            slice(*np.searchsorted(of, (k, k + 1)).tolist()) for of in (entries.category, entries.truth_category)
        )
        best = np.argsort(-entries.scores[found], kind="mergesort")  # over all images of the category
        for a in range(areas):
            objects = int(np.count_nonzero(~matches.truth_ignored[a, truth]))
            if not objects:
                continue
            matched, counts = matches.matched[a, :, found], ~matches.ignored[a, :, found]
            hit = matched & counts
            for m, limit in enumerate(limits):
                recall[:, k, a, m] = hit[:, entries.rank[found] < limit].sum(1) / objects
            precision[:, :, k, a] = precision_at(hit[:, best], (~matched & counts)[:, best], objects, recalls)
    return Curves(precision, recall, entries.categories)


def precision_at(hit: np.ndarray, miss: np.ndarray, objects: float, recalls: np.ndarray) -> np.ndarray:
    """The largest precision (T, R) at each recall or a higher one.

    Args:
        hit, miss: (T, D) of detections, best first: bool, or how often each counts.
        objects: to be found.
        recalls: (R,).
    """
    right, wrong = np.cumsum(hit, 1).astype(float), np.cumsum(miss, 1).astype(float)
    reached = right / (wrong + right + np.spacing(1))
    reached = np.maximum.accumulate(reached[:, ::-1], 1)[:, ::-1]
    result = np.zeros((len(hit), len(recalls)))
    for row, values, recall in zip(result, reached, right / objects, strict=True):
        place = np.searchsorted(recall, recalls, side="left")
        row[: np.count_nonzero(place < len(values))] = values[place[place < len(values)]]
    return result


def precisions_by_size(curves: Curves) -> dict[str, np.ndarray]:
    """The precisions whose means are COCO's six APs, which LVIS has too, by name."""
    precision = curves.precision
    return {
        "AP": precision[:, :, :, 0],
        "AP50": precision[0, :, :, 0],
        "AP75": precision[5, :, :, 0],
        "APs": precision[:, :, :, 1],
        "APm": precision[:, :, :, 2],
        "APl": precision[:, :, :, 3],
    }


def per_category(curves: Curves, names: Mapping[Id, str]) -> dict[str, float | None]:
    """AP in percent by category name, over all sizes."""
    return {names[key]: mean_percent(curves.precision[:, :, k, 0]) for k, key in enumerate(curves.categories)}


def mean_percent(values: np.ndarray) -> float | None:
    """The mean of the defined values (not -1) in percent; None if there is none."""
    defined = values[values > -1]
    return 100.0 * float(defined.mean()) if defined.size else None
