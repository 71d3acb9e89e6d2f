"""AP*: detections of a COCO-trained model against LVIS annotations, as lvis-api computes it.

LVIS annotates a few categories on every image. A detection counts only where its category is known to be present or
absent, and one that matches nothing is left out where not every instance was annotated.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from data.annotations import Id
from data.lvis import SYNSETS
from eval.accumulation import accumulate, mean_percent, per_category, precisions_by_size
from eval.checks import CheckedAnnotation, CheckedDetection, GroundTruth
from eval.coco import Scores
from eval.matching import PARAMS, Matches, arrange, mask_overlaps, match
from sharpcontour.errors import InputError

MAX_DETECTIONS = 300  # per image, of all categories together


def evaluate_lvis(ground_truth: GroundTruth, detections: Sequence[CheckedDetection]) -> Scores:
    """Thirteen numbers: AP AP50 AP75 APs APm APl APr APc APf AR300 ARs ARm ARl.

    Args:
        ground_truth: LVIS annotations: images with "neg_category_ids" and "not_exhaustive_category_ids", categories
            with "frequency". For COCO's categories those of ``scripts/prepare_data.py lvis``.
        detections: as :func:`eval.checks.check_detections` gives them, sized by their masks.

    Raises:
        InputError: where an image lacks the two lists: these are no LVIS annotations.
    """
    curves = accumulate(_matches(ground_truth, detections), [MAX_DETECTIONS])
    precision, recall = curves.precision, curves.recall[..., 0]
    frequency = np.array([ground_truth.categories[key].get("frequency", "") for key in curves.categories])
    numbers = {
        **precisions_by_size(curves),
        "APr": precision[:, :, frequency == "r", 0],
        "APc": precision[:, :, frequency == "c", 0],
        "APf": precision[:, :, frequency == "f", 0],
        "AR300": recall[:, :, 0],
        "ARs": recall[:, :, 1],
        "ARm": recall[:, :, 2],
        "ARl": recall[:, :, 3],
    }
    summary = {name: mean_percent(values) for name, values in numbers.items()}
    return Scores(summary, per_category(curves, ground_truth.category_names))


def without_other_categories(
    detections: Sequence[Any], ground_truth: GroundTruth, name: str
) -> tuple[list[Any], Counter[Any]]:
    """The detections of the annotations' categories, and how many there were of each other: LVIS lacks some of COCO's.

    Raises:
        InputError: where none is left.
    """
    known = set(ground_truth.category_names)
    kept, others = [], Counter[Any]()
    for found in detections:
        key = found.get("category_id") if isinstance(found, dict) else None
        if isinstance(key, (int, str)) and key not in known:
            others[key] += 1
        else:  # what is broken is refused later
            kept.append(found)
    if others and not kept:
        raise InputError(
            f"{name}: none of its categories is in {ground_truth.name}; "
            "scripts/prepare_data.py lvis gives LVIS annotations COCO's categories"
        )
    return kept, others


def has_cocos_ids(detections: Sequence[CheckedDetection], ground_truth: GroundTruth) -> bool:
    """Whether all detections have COCO's category ids, but the annotations LVIS' own: equal numbers, other things."""
    own = {
        key: one["synset"] for key, one in ground_truth.categories.items() if isinstance(key, int) and "synset" in one
    }
    used = {found["category_id"] for found in detections}
    return bool(used) and used <= set(SYNSETS) and any(SYNSETS.get(key, name) != name for key, name in own.items())


def _matches(ground_truth: GroundTruth, detections: Sequence[CheckedDetection]) -> Matches:
    """Matches of the annotations and detections that count, by the rule for categories not annotated exhaustively."""
    lists = _lists(ground_truth)
    truths: list[CheckedAnnotation] = [
        truth | {"iscrowd": 0} for truth in ground_truth.coco.dataset["annotations"] if truth["area"] > 0
    ]
    judged = defaultdict(set, {image: set(absent) for image, (absent, _) in lists.items()})
    for truth in truths:
        judged[truth["image_id"]].add(truth["category_id"])
    found = [
        one for one in _best_of_images(detections) if one["area"] > 0 and one["category_id"] in judged[one["image_id"]]
    ]
    entries = arrange(ground_truth, truths, found, MAX_DETECTIONS)
    matches = match(entries, mask_overlaps(entries), entries.own_ignore, PARAMS.areaRng)
    partial = {(image, category) for image, (_, some) in lists.items() for category in some}
    pairs = zip(entries.image.tolist(), entries.category.tolist(), strict=True)
    unsure = np.array([(entries.images[i], entries.categories[c]) in partial for i, c in pairs], bool)
    matches.ignored |= unsure & ~matches.matched
    return matches


def _lists(ground_truth: GroundTruth) -> dict[Id, tuple[Iterable[Id], Iterable[Id]]]:
    """Categories known to be absent, and those not annotated exhaustively, of each image."""
    lists = {}
    for key, image in ground_truth.images.items():
        try:
            lists[key] = image["neg_category_ids"], image["not_exhaustive_category_ids"]
        except KeyError as error:
            raise InputError(
                f"{ground_truth.name}: image id {key} has no {error}; the metric lvis needs LVIS annotations "
                "(scripts/prepare_data.py lvis)"
            ) from None
    return lists


def _best_of_images(detections: Sequence[CheckedDetection]) -> list[CheckedDetection]:
    """The best detections of every image, whatever their category; on equal scores the earlier ones."""
    by_image = defaultdict(list)
    for found in detections:
        by_image[found["image_id"]].append(found)
    return [one for group in by_image.values() for one in sorted(group, key=lambda one: -one["score"])[:MAX_DETECTIONS]]
