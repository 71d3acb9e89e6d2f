"""All metrics by one call: mask AP, Boundary AP, AP* (LVIS) and Cityscapes' AP."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from eval.boundary import DILATION_RATIO, band_width
from eval.checks import GroundTruth, check_detections
from eval.cityscapes import evaluate_cityscapes
from eval.coco import Scores, evaluate_coco
from eval.lvis import evaluate_lvis, has_cocos_ids, without_other_categories
from sharpcontour.errors import InputError
from sharpcontour.io.garbage import without_garbage_collection

METRICS = ("segm", "boundary", "lvis", "cityscapes")
USUAL = ("segm", "boundary")
"""The metrics that any COCO annotations allow."""


@without_garbage_collection()
def evaluate_detections(
    ground_truth: GroundTruth,
    detections: Sequence[Mapping[str, Any]],
    metrics: Sequence[str] = USUAL,
    dilation_ratio: float = DILATION_RATIO,
    name: str = "results",
    processes: int = 1,
    bootstrap: int = 0,
) -> dict[str, Scores]:
    """Score COCO results.

    Args:
        ground_truth: see :class:`~eval.checks.GroundTruth`.
        detections: entries with "image_id", "category_id", "score" and "segmentation"; may be empty. Left unchanged.
        metrics: out of :data:`METRICS`.
        dilation_ratio: width of Boundary AP's band as a share of the image diagonal.
        name: of the results file, for error messages.
        processes: at most, that make the boundaries for "boundary"; where they are few, one makes them all.
        bootstrap: draws of the images, whose AP these two give as ``replicates``, see :mod:`eval.bootstrap`.

    Raises:
        InputError: for unknown metrics and broken entries, for image or category ids that the ground truth does not
            have (LVIS lacks some of COCO's categories: their detections are left out, with a warning), and where the
            ground truth is not of the kind that a metric needs.
    """
    if unknown := [metrics] if isinstance(metrics, str) else [one for one in metrics if one not in METRICS]:
        raise InputError(f"metrics are a list out of {', '.join(METRICS)}; not {unknown[0]!r}")
    band_width(1, 1, dilation_ratio)  # refuses an impossible ratio before the work
    if "lvis" in metrics and isinstance(detections, (list, tuple)):
        detections, others = without_other_categories(detections, ground_truth, name)
        if others:
            keys = ", ".join(sorted(map(str, others)))
            print(
                f"warning: {name}: {others.total()} detections of the categories {keys} "
                f"are left out, since {ground_truth.name} does not have these",
                file=sys.stderr,
            )
    checked = check_detections(detections, ground_truth, name)
    scores = {}
    if set(metrics) & set(USUAL):
        scores = evaluate_coco(ground_truth, checked, metrics, dilation_ratio, processes, bootstrap)
    if "lvis" in metrics:
        if has_cocos_ids(checked, ground_truth):
            print(
                f"warning: {name} seems to have COCO's category ids and {ground_truth.name} LVIS' own, which mean "
                "other things; scripts/prepare_data.py lvis gives LVIS annotations COCO's",
                file=sys.stderr,
            )
        scores["lvis"] = evaluate_lvis(ground_truth, checked)
    if "cityscapes" in metrics:
        scores["cityscapes"] = evaluate_cityscapes(ground_truth, checked)
    return scores
