"""COCO mask AP and Boundary AP, by pycocotools' own matching and accumulation.

Detections are sized by their mask, not by their box: APs, APm and APl differ from tools that leave "bbox" in.
"""

from __future__ import annotations

import contextlib
import copy
import io
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eval.boundary import band_width, boundary_ious
from eval.checks import GroundTruth

_MIN_SCORE = 0.5  # the lowest IoU threshold of COCO


@dataclass
class Scores:
    """Numbers of one metric, in percent; None where there is no object to find.

    Attributes:
        summary: by name; COCO's are AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl.
        per_category: AP by category name.
    """

    summary: dict[str, float | None]
    per_category: dict[str, float | None]


def evaluate_coco(
    ground_truth: GroundTruth,
    detections: list[dict[str, Any]],
    metrics: Sequence[str],
    dilation_ratio: float,
    processes: int = 1,
) -> dict[str, Scores]:
    """COCO's twelve numbers by masks ("segm") and by boundaries ("boundary"); the mask IoUs are computed once.

    Args:
        ground_truth: the annotations.
        detections: as :func:`eval.checks.check_detections` gives them.
        metrics: any; others than these two are passed over.
        dilation_ratio: width of Boundary AP's band as a share of the image diagonal.
        processes: that match; images are divided among them. The numbers do not depend on it.
    """
    if processes == 1:
        evaluators = _matched(ground_truth, detections, metrics, dilation_ratio)
    else:
        evaluators = _matched_together(ground_truth, detections, metrics, dilation_ratio, processes)
    names = ground_truth.category_names
    return {metric: _scores(evaluator, names) for metric, evaluator in evaluators.items()}


def _matched(
    ground_truth: GroundTruth, detections: list[dict[str, Any]], metrics: Sequence[str], dilation_ratio: float
) -> dict[str, MaskEval]:
    """Evaluators that have matched all images."""
    found = ground_truth.index(detections)
    evaluators: dict[str, MaskEval] = {}
    if "segm" in metrics:
        evaluators["segm"] = MaskEval(ground_truth.coco, found, "segm")
        evaluators["segm"].run()
    if "boundary" in metrics:
        masks = evaluators.get("segm")
        evaluators["boundary"] = _BoundaryEval(ground_truth, found, dilation_ratio, masks)
        evaluators["boundary"].run()
    return evaluators


def _matched_together(
    ground_truth: GroundTruth,
    detections: list[dict[str, Any]],
    metrics: Sequence[str],
    dilation_ratio: float,
    processes: int,
) -> dict[str, MaskEval]:
    """The same by several processes, each with its share of the images."""
    images = list(ground_truth.sizes)
    owner = {image: k % processes for k, image in enumerate(images)}
    shares: list[list[dict[str, Any]]] = [[] for _ in range(processes)]
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


def _matches(*arguments: Any) -> dict[str, list[dict[str, Any]]]:
    return {
        metric: [match for match in evaluator.evalImgs if match is not None]
        for metric, evaluator in _matched(*arguments).items()
    }


def _scores(evaluator: MaskEval, names: Mapping[Any, str]) -> Scores:
    accumulated(evaluator)
    return Scores(_summary(evaluator), per_category(evaluator, names))


def accumulated(evaluator: MaskEval) -> MaskEval:
    """The same after precision and recall are computed, in silence."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.accumulate()
    return evaluator


class MaskEval(COCOeval):
    """Mask AP. Where no pair of an image and category can match, the base class is spared the search."""

    _unmatched: tuple[Any, Any, Any] = (None, None, None)

    def computeIoU(self, imgId: Any, catId: Any) -> Any:
        """(D, G) IoUs, detections from best to worst; [] if none reaches the lowest threshold."""
        ious = super().computeIoU(imgId, catId)
        return ious if len(ious) and ious.max() >= _MIN_SCORE else []

    def evaluateImg(self, imgId: Any, catId: Any, aRng: Any, maxDet: int) -> Any:
        """Matches of one image and category; of them what :meth:`accumulate` asks for, in little memory."""
        if len(self.ious[imgId, catId]) == 0:
            return self._nothing_matched(imgId, catId, aRng, maxDet)
        result = super().evaluateImg(imgId, catId, aRng, maxDet)
        if result is None:
            return None
        kept = {key: result[key] for key in ("image_id", "category_id", "aRng", "dtScores", "gtIgnore")}
        return kept | {key: np.asarray(result[key]).astype(bool) for key in ("dtMatches", "dtIgnore")}

    def _nothing_matched(self, image: Any, category: Any, area: Any, limit: int) -> Any:
        """The same where no pair reaches the lowest threshold: only sizes are left to compare."""
        truths, found = self._gts[image, category], self._dts[image, category]
        if not truths and not found:
            return None
        key = image, category, limit
        if key != self._unmatched[0]:  # asked for once for each range of areas
            scores = np.array([one["score"] for one in found])
            best = np.argsort(-scores, kind="mergesort")[:limit]
            areas = np.array([one["area"] for one in found])[best]
            self._unmatched = key, scores[best].tolist(), areas
        _, scores, areas = self._unmatched
        thresholds = len(self.params.iouThrs)
        ignored = [one["ignore"] or one["area"] < area[0] or one["area"] > area[1] for one in truths]
        return {
            "image_id": image,
            "category_id": category,
            "aRng": area,
            "dtScores": scores,
            "dtMatches": np.zeros((thresholds, len(scores)), bool),
            "dtIgnore": np.broadcast_to((areas < area[0]) | (areas > area[1]), (thresholds, len(scores))),
            "gtIgnore": np.array(ignored, bool),
        }

    def run(self) -> None:
        """Match everything, in silence."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.evaluate()

    def take(self, matches: list[dict[str, Any]]) -> None:
        """What :meth:`run` would have found, from evaluators of parts of the images."""
        params = self.params
        params.imgIds, params.catIds = (np.unique(ids).tolist() for ids in (params.imgIds, params.catIds))
        self._paramsEval = copy.deepcopy(params)
        by_key = {(match["category_id"], *match["aRng"], match["image_id"]): match for match in matches}
        self.evalImgs = [
            by_key.get((category, *area, image))
            for category in params.catIds
            for area in params.areaRng
            for image in params.imgIds
        ]


class _BoundaryEval(MaskEval):
    """Boundary AP: pairs score min(mask IoU, boundary IoU), and with a crowd their mask IoU alone.

    A boundary IoU only lowers a score, and scores below the lowest threshold match nothing, so boundaries are made only
    for masks in pairs above it. That changes none of the results.

    Args:
        ground_truth: the annotations.
        found: the detections.
        dilation_ratio: of the band.
        masks: of the same, if it has run: its IoUs are used, and its matches where boundaries lower no score.
    """

    def __init__(self, ground_truth: GroundTruth, found: COCO, dilation_ratio: float, masks: MaskEval | None) -> None:
        super().__init__(ground_truth.coco, found, "segm")
        self._widths = {image: band_width(*size, dilation_ratio) for image, size in ground_truth.sizes.items()}
        self._mask_ious = masks.ious if masks else None
        matches = masks.evalImgs if masks else []
        self._matches = {(e["image_id"], e["category_id"], *e["aRng"]): e for e in matches if e is not None}
        self._image: Any = None  # the one whose scores are at hand
        self._scores: dict[Any, Any] = {}  # by category
        self._lowered: set[tuple[Any, Any]] = set()

    def _prepare(self) -> None:
        super()._prepare()
        for truths in self._gts.values():
            for truth in truths:
                truth["ignore"] = int(truth["iscrowd"] or truth["own_ignore"])  # the base class overwrites it

    def computeIoU(self, imgId: Any, catId: Any) -> Any:
        """(D, G) scores, detections from best to worst; [] if none reaches the lowest threshold."""
        if imgId != self._image:  # they are asked for image by image
            self._image, self._scores = imgId, self._score(imgId)
        return self._scores[catId]

    def _score(self, image: Any) -> dict[Any, Any]:
        """Scores of all categories of one image."""
        scores: dict[Any, Any] = {}
        pairs: list[tuple[Any, int, int, Any, Any]] = []
        for category in self.params.catIds:
            key = image, category
            ious = self._mask_ious[key] if self._mask_ious else super().computeIoU(image, category)
            scores[category] = ious
            if len(ious):
                scores[category] = ious.copy()
                pairs += [(category, *pair) for pair in self._candidates(key, ious)]
        values = boundary_ious([pair[3] for pair in pairs], [pair[4] for pair in pairs], self._widths[image])
        for (category, row, column, _, _), value in zip(pairs, values.tolist(), strict=True):
            if value < scores[category][row, column]:
                scores[category][row, column] = value
                self._lowered.add((image, category))
        return scores

    def _candidates(self, key: tuple[Any, Any], ious: np.ndarray) -> list[tuple[int, int, Any, Any]]:
        """Row, column and the two masks of every pair that the boundary may lower."""
        truths, found = self._gts[key], self._dts[key]
        best = np.argsort([-detection["score"] for detection in found], kind="mergesort")
        crowd = np.array([truth["iscrowd"] for truth in truths], bool)
        return [
            (int(row), int(column), found[best[row]]["segmentation"], truths[column]["segmentation"])
            for row, column in np.argwhere((ious >= _MIN_SCORE) & ~crowd)
        ]

    def evaluateImg(self, imgId: Any, catId: Any, aRng: Any, maxDet: int) -> Any:
        """Matches of one image and category."""
        key = imgId, catId
        same = key not in self._lowered and not any(truth["own_ignore"] for truth in self._gts[key])
        if self._mask_ious and same:
            return self._matches.get((*key, *aRng))
        return super().evaluateImg(imgId, catId, aRng, maxDet)


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


def per_category(evaluator: COCOeval, names: Mapping[Any, str]) -> dict[str, float | None]:
    """AP by category name, over all sizes and the most detections an image."""
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    return {names[key]: mean_percent(precision[:, :, k]) for k, key in enumerate(evaluator.params.catIds)}


def mean_percent(values: np.ndarray) -> float | None:
    """Mean of what is defined; None if nothing is."""
    defined = values[values > -1]
    return 100.0 * float(defined.mean()) if defined.size else None
