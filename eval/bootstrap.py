"""How far AP would be elsewhere on other images of the same kind: AP of images drawn again with replacement.

Drawn images depend on their number and the seed alone, so the replicates of two models on the same images are pairs,
and the spread of their differences is the standard error of a gain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.matching import MaskEval, Match

SEED = 0


def replicates(evaluator: MaskEval, count: int) -> list[float]:
    """AP in percent of ``count`` draws of the images, as :mod:`eval.coco` computes it, to two decimals.

    A draw in which no object of a category is left passes that category over, as COCO does.

    Args:
        evaluator: that has matched all images.
        count: B.
    """
    images = {image: k for k, image in enumerate(np.unique(evaluator.params.imgIds).tolist())}
    if not images:
        return []
    rng = np.random.default_rng(SEED)
    weights = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), size=count)  # (B, images)
    of_category: dict[object, list[Match]] = {}
    everything = evaluator.params.areaRng[0]
    for match in evaluator.evalImgs:
        if match is not None and match["aRng"] == everything:
            of_category.setdefault(match["category_id"], []).append(match)
    values = np.array([_average_precisions(matches, images, weights) for matches in of_category.values()])
    defined = ~np.isnan(values)
    if not defined.any():
        return []
    means = np.where(defined, values, 0).sum(0) / np.maximum(defined.sum(0), 1)
    return [round(100 * float(mean), 2) for mean in means]


def standard_error(values: Sequence[float] | np.ndarray) -> float:
    """Standard error of what the replicates ``values`` (B) repeat."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _average_precisions(matches: Sequence[Match], images: dict[object, int], weights: np.ndarray) -> np.ndarray:
    """AP of one category (B,), 0 to 1, with images counted ``weights`` (B, images) times; NaN without objects."""
    image = np.concatenate([np.full(len(match["dtScores"]), images[match["image_id"]], np.int64) for match in matches])
    scores = np.concatenate([np.asarray(match["dtScores"], np.float64) for match in matches])
    best = np.argsort(-scores, kind="mergesort")
    hit = np.concatenate([match["dtMatches"] for match in matches], 1)[:, best].astype(bool)  # (T, D)
    counts = ~np.concatenate([match["dtIgnore"] for match in matches], 1)[:, best].astype(bool)
    objects = np.zeros(weights.shape[1])
    np.add.at(
        objects, [images[match["image_id"]] for match in matches], [(~match["gtIgnore"]).sum() for match in matches]
    )
    result = np.full(len(weights), np.nan)
    for k, weight in enumerate(weights):
        if total := float(weight @ objects):
            result[k] = _average_precision(hit & counts, ~hit & counts, weight[image[best]], total)
    return result


def _average_precision(hit: np.ndarray, miss: np.ndarray, weight: np.ndarray, objects: float) -> float:
    """COCO's mean of the precision at 101 recalls and T thresholds; ``hit`` and ``miss`` are (T, D), best first."""
    right, wrong = np.cumsum(hit * weight, 1), np.cumsum(miss * weight, 1)
    precision = right / np.maximum(right + wrong, np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    recalls = np.linspace(0, 1, 101)
    total = 0.0
    for recall, values in zip(right / objects, envelope, strict=True):
        place = np.searchsorted(recall, recalls, side="left")
        total += values[place[place < len(values)]].sum() / len(recalls)
    return total / len(hit)
