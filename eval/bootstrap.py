"""How far AP would be elsewhere on other images of the same kind: AP of images drawn again with replacement.

Drawn images depend on their number and the seed alone, so the replicates of two models on the same images are pairs,
and the spread of their differences is the standard error of a gain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from eval.accumulation import precision_at
from eval.matching import PARAMS, Matches

SEED = 0


def replicates(matches: Matches, count: int) -> list[float]:
    """AP in percent of ``count`` draws of the images, as :mod:`eval.coco` computes it, to two decimals.

    A draw in which no object of a category is left passes that category over, as COCO does, and one without any object
    has no AP and is left out: of all detectors on the same images alike.

    Args:
        matches: of all images.
        count: B.
    """
    entries = matches.entries
    number = len(entries.images)
    if not number or not len(entries.truth_category):
        return []
    rng = np.random.default_rng(SEED)
    weights = rng.multinomial(number, np.full(number, 1 / number), size=count)  # (B, images)
    categories = np.unique(entries.truth_category)
    bar = tqdm(categories.tolist(), desc="draws", unit="category", disable=None, delay=1, leave=False)
    values = np.array([_average_precisions(matches, category, weights) for category in bar])
    defined = ~np.isnan(values)
    means = np.where(defined, values, 0).sum(0) / np.maximum(defined.sum(0), 1)
    return [round(100 * float(mean), 2) for mean in means[defined.any(0)]]


def standard_error(values: Sequence[float] | np.ndarray) -> float:
    """Standard error of what the replicates ``values`` (B), two at least, repeat."""
    return float(np.std(values, ddof=1))


def _average_precisions(matches: Matches, category: int, weights: np.ndarray) -> np.ndarray:
    """AP of one category (B,), 0 to 1, with images counted ``weights`` (B, images) times; NaN without objects."""
    entries = matches.entries
    found = np.flatnonzero(entries.category == category)
    found = found[np.argsort(-entries.scores[found], kind="mergesort")]
    image, hit, counts = entries.image[found], matches.matched[0][:, found], ~matches.ignored[0][:, found]  # any area
    counted = (entries.truth_category == category) & ~matches.truth_ignored[0]
    objects = np.bincount(entries.truth_image[counted], minlength=weights.shape[1]).astype(float)
    result = np.full(len(weights), np.nan)
    for k, weight in enumerate(weights):
        if total := float(weight @ objects):
            often = weight[image]
            result[k] = precision_at((hit & counts) * often, (~hit & counts) * often, total, PARAMS.recThrs).mean()
    return result
