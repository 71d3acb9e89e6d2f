"""COCO mask AP and Boundary AP, by pycocotools' own matching and accumulation.

Detections are sized by their mask, not by their box: APs, APm and APl differ from tools that leave "bbox" in.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from pycocotools.cocoeval import COCOeval

from data.annotations import Id
from eval.bootstrap import replicates
from eval.checks import Found, GroundTruth
from eval.matching import BoundaryEval, MaskEval, Match


@dataclass
class Scores:
    """Numbers of one metric, in percent; None where there is no object to find.

    Attributes:
        summary: by name; COCO's are AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl.
        per_category: AP by category name.
        replicates: AP of images drawn again, see :mod:`eval.bootstrap`; empty unless asked for.
    """

    summary: dict[str, float | None]
    per_category: dict[str, float | None]
    replicates: list[float] = field(default_factory=list)


def evaluate_coco(
    ground_truth: GroundTruth,
    detections: Sequence[Found],
    metrics: Sequence[str],
    dilation_ratio: float,
    processes: int = 1,
    bootstrap: int = 0,
) -> dict[str, Scores]:
    """COCO's twelve numbers by masks ("segm") and by boundaries ("boundary"); the mask IoUs are computed once.

    Args:
        ground_truth: the annotations.
        detections: as :func:`eval.checks.check_detections` gives them.
        metrics: any; others than these two are passed over.
        dilation_ratio: width of Boundary AP's band as a share of the image diagonal.
        processes: that match; images are divided among them, and there are no more than images or cores, for each takes
            hundreds of MiB. The numbers do not depend on it.
        bootstrap: draws of the images for ``replicates``.
    """
    processes = min(processes, len(ground_truth.sizes), os.cpu_count() or 1)
    if processes <= 1:
        evaluators = _matched(ground_truth, detections, metrics, dilation_ratio)
    else:
        evaluators = _matched_together(ground_truth, detections, metrics, dilation_ratio, processes)
    names = ground_truth.category_names
    return {metric: _scores(evaluator, names, bootstrap) for metric, evaluator in evaluators.items()}


def _matched(
    ground_truth: GroundTruth, detections: Sequence[Found], metrics: Sequence[str], dilation_ratio: float
) -> dict[str, MaskEval]:
    """Evaluators that have matched all images, by the name of their metric."""
    found = ground_truth.index(detections)
    evaluators: dict[str, MaskEval] = {}
    if "segm" in metrics:
        evaluators["segm"] = MaskEval(ground_truth.coco, found, "segm")
        evaluators["segm"].run()
    if "boundary" in metrics:
        masks = evaluators.get("segm")
        evaluators["boundary"] = BoundaryEval(ground_truth, found, dilation_ratio, masks)
        evaluators["boundary"].run()
    return evaluators


def _matched_together(
    ground_truth: GroundTruth,
    detections: Sequence[Found],
    metrics: Sequence[str],
    dilation_ratio: float,
    processes: int,
) -> dict[str, MaskEval]:
    """Matches of all detections, found by several processes that each have a share of the images."""
    images = list(ground_truth.sizes)
    owner = {image: k % processes for k, image in enumerate(images)}
    shares: list[list[Found]] = [[] for _ in range(processes)]
    for found in detections:
        shares[owner[found["image_id"]]].append(found)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        parts = [
            pool.submit(_matches, ground_truth.part(images[k::processes]), share, metrics, dilation_ratio)
            for k, share in enumerate(shares)
        ]
        matches = [part.result() for part in parts]
    empty, evaluators = ground_truth.index([]), {}
    for metric in matches[0]:
        evaluators[metric] = MaskEval(ground_truth.coco, empty, "segm")
        evaluators[metric].take([match for part in matches for match in part[metric]])
    return evaluators


def _matches(
    ground_truth: GroundTruth, detections: Sequence[Found], metrics: Sequence[str], dilation_ratio: float
) -> dict[str, list[Match]]:
    return {
        metric: [match for match in evaluator.evalImgs if match is not None]
        for metric, evaluator in _matched(ground_truth, detections, metrics, dilation_ratio).items()
    }


def _scores(evaluator: MaskEval, names: Mapping[Id, str], bootstrap: int) -> Scores:
    accumulated(evaluator)
    return Scores(_summary(evaluator), per_category(evaluator, names), replicates(evaluator, bootstrap))


def accumulated(evaluator: MaskEval) -> MaskEval:
    """The evaluator after precision and recall are computed, which pycocotools would announce on the screen."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.accumulate()
    return evaluator


def _summary(evaluator: COCOeval) -> dict[str, float | None]:
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]  # (T, R, K, A, M) and (T, K, A, M)
    numbers = {
        "AP": precision[:, :, :, 0, 2],
        "AP50": precision[0, :, :, 0, 2],
        "AP75": precision[5, :, :, 0, 2],
        "APs": precision[:, :, :, 1, 2],
        "APm": precision[:, :, :, 2, 2],
        "APl": precision[:, :, :, 3, 2],
        "AR1": recall[:, :, 0, 0],
        "AR10": recall[:, :, 0, 1],
        "AR100": recall[:, :, 0, 2],
        "ARs": recall[:, :, 1, 2],
        "ARm": recall[:, :, 2, 2],
        "ARl": recall[:, :, 3, 2],
    }
    return {name: mean_percent(values) for name, values in numbers.items()}


def per_category(evaluator: COCOeval, names: Mapping[Id, str]) -> dict[str, float | None]:
    """AP by category name, over all sizes and the most detections an image."""
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    return {names[key]: mean_percent(precision[:, :, k]) for k, key in enumerate(evaluator.params.catIds)}


def mean_percent(values: np.ndarray) -> float | None:
    """The mean of the defined values (not -1) in percent; None if there is none."""
    defined = values[values > -1]
    return 100.0 * float(defined.mean()) if defined.size else None
