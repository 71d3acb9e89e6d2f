"""Matching of detections with objects, by masks or by boundaries: pycocotools' own, spared what cannot matter."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from data.annotations import Id
from eval.boundary import band_width, boundary_ious
from eval.checks import GroundTruth
from sharpcontour.masks.run_lengths import RLE

_MIN_SCORE = 0.5  # the lowest IoU threshold of COCO


class Match(TypedDict):
    """What pycocotools keeps of the matches of one image and category, T thresholds, D detections and G objects."""

    image_id: Id
    category_id: Id
    aRng: list[float]  # areas from and to which objects count, pixels
    dtScores: list[float]  # D
    dtMatches: np.ndarray  # (T, D) bool
    dtIgnore: np.ndarray  # (T, D) bool
    gtIgnore: np.ndarray  # (G,) bool


class MaskEval(COCOeval):
    """Evaluator of mask AP, which spares the base class the search where no detection and object can match."""

    _category: Id | None = None  # that is at work
    _ranked: dict[tuple[Id, int], tuple[np.ndarray, list[float], np.ndarray]]
    _found: dict[tuple[Id, int, bytes], tuple[np.ndarray, np.ndarray]]

    def computeIoU(self, imgId: Id, catId: Id) -> np.ndarray | list[float]:
        """(D, G) IoUs, detections from best to worst; [] if none reaches the lowest threshold."""
        if not self._gts[imgId, catId] or not self._dts[imgId, catId]:
            return []
        ious = super().computeIoU(imgId, catId)
        return ious if len(ious) and ious.max() >= _MIN_SCORE else []

    def evaluateImg(self, imgId: Id, catId: Id, aRng: list[float], maxDet: int) -> Match | None:
        """Matches of one image and category; of them what :meth:`accumulate` asks for, in little memory."""
        result = self._nothing_matched(imgId, catId, aRng, maxDet)
        if result is None or len(self.ious[imgId, catId]) == 0:
            return result
        ignored = result["gtIgnore"]
        # The match depends on which objects are ignored; all of them or none make no difference.
        pattern = imgId, maxDet, ignored.tobytes() if ignored.any() and not ignored.all() else b""
        if pattern not in self._found:
            self._found[pattern] = self._match(imgId, catId, aRng, maxDet)
        able, place = self._found[pattern]
        matched = place >= 0
        result["dtMatches"][:, able] = matched
        result["dtIgnore"][:, able] = np.where(matched, ignored[place], result["dtIgnore"][:, able])
        return result

    def _match(self, image: Id, category: Id, area: list[float], limit: int) -> tuple[np.ndarray, np.ndarray]:
        """Which detections (A,) reach an object at all, and the object (T, A) of each at every threshold, or -1.

        Those that reach none neither match nor keep others from it, so the base class never sees them.
        """
        key = image, category
        ious, found = self.ious[key], self._dts[key]
        able = np.flatnonzero(ious.max(1) >= _MIN_SCORE)
        best = self._rank(image, category, limit)[0]
        self._dts[key], self.ious[key] = [found[i] for i in best[able]], ious[able]
        matches = np.asarray(super().evaluateImg(image, category, area, limit)["dtMatches"], np.int64)
        self._dts[key], self.ious[key] = found, ious
        ids = np.array([truth["id"] for truth in self._gts[key]])
        order = np.argsort(ids)
        place = order[np.searchsorted(ids[order], matches).clip(max=len(ids) - 1)]
        return able, np.where(matches > 0, place, -1)

    def _nothing_matched(self, image: Id, category: Id, area: list[float], limit: int) -> Match | None:
        """Matches of an image and category in which no pair reaches the lowest IoU threshold: only sizes count."""
        truths, found = self._gts[image, category], self._dts[image, category]
        if not truths and not found:
            return None
        _, scores, areas = self._rank(image, category, limit)
        thresholds = len(self.params.iouThrs)
        ignored = [one["ignore"] or one["area"] < area[0] or one["area"] > area[1] for one in truths]
        return {
            "image_id": image,
            "category_id": category,
            "aRng": area,
            "dtScores": scores,
            "dtMatches": np.zeros((thresholds, len(scores)), bool),
            "dtIgnore": np.tile((areas < area[0]) | (areas > area[1]), (thresholds, 1)),
            "gtIgnore": np.array(ignored, bool),
        }

    def _rank(self, image: Id, category: Id, limit: int) -> tuple[np.ndarray, list[float], np.ndarray]:
        """Places, scores and areas of the detections from best to worst; kept while a category is at work."""
        if category != self._category:
            self._category, self._ranked, self._found = category, {}, {}
        if (image, limit) not in self._ranked:
            found = self._dts[image, category]
            scores = np.array([one["score"] for one in found])
            best = np.argsort(-scores, kind="mergesort")[:limit]
            areas = np.array([one["area"] for one in found])[best]
            self._ranked[image, limit] = best, scores[best].tolist(), areas
        return self._ranked[image, limit]

    def run(self) -> None:
        """Match everything, in silence."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.evaluate()

    def take(self, matches: Sequence[Match]) -> None:
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


class BoundaryEval(MaskEval):
    """Evaluator of Boundary AP: pairs score min(mask IoU, boundary IoU), and with a crowd their mask IoU alone.

    A boundary IoU only lowers a score, and scores below the lowest threshold match nothing, so boundaries are made only
    for masks in pairs above it. That changes none of the results.

    Args:
        ground_truth: the annotations.
        found: the detections.
        dilation_ratio: of the band.
        masks: the evaluation of the same detections by their masks, if it has run: its IoUs are used, and its matches
            where boundaries lower no score.
    """

    def __init__(self, ground_truth: GroundTruth, found: COCO, dilation_ratio: float, masks: MaskEval | None) -> None:
        super().__init__(ground_truth.coco, found, "segm")
        self._widths = {image: band_width(*size, dilation_ratio) for image, size in ground_truth.sizes.items()}
        self._mask_ious = masks.ious if masks else None
        matches = masks.evalImgs if masks else []
        self._matches = {(e["image_id"], e["category_id"], *e["aRng"]): e for e in matches if e is not None}
        self._image: Id | None = None  # the one whose scores are at hand
        self._scores: dict[Id, np.ndarray | list[float]] = {}  # by category
        self._lowered: set[tuple[Id, Id]] = set()

    def _prepare(self) -> None:
        super()._prepare()
        for truths in self._gts.values():
            for truth in truths:
                truth["ignore"] = int(truth["iscrowd"] or truth["own_ignore"])  # the base class overwrites it

    def computeIoU(self, imgId: Id, catId: Id) -> np.ndarray | list[float]:
        """(D, G) scores, detections from best to worst; [] if none reaches the lowest threshold."""
        if imgId != self._image:  # they are asked for image by image
            self._image, self._scores = imgId, self._score(imgId)
        return self._scores[catId]

    def _score(self, image: Id) -> dict[Id, np.ndarray | list[float]]:
        """Scores of all categories of one image."""
        scores: dict[Id, Any] = {}
        pairs: list[tuple[Id, int, int, RLE, RLE]] = []
        for category in self.params.catIds:
            key = image, category
            ious = self._mask_ious[key] if self._mask_ious else super().computeIoU(image, category)
            scores[category] = ious
            if len(ious):
                scores[category] = ious.copy()
                pairs += [(category, *pair) for pair in self._candidates(key, np.asarray(ious))]
        values = boundary_ious([pair[3] for pair in pairs], [pair[4] for pair in pairs], self._widths[image])
        for (category, row, column, _, _), value in zip(pairs, values.tolist(), strict=True):
            if value < scores[category][row, column]:
                scores[category][row, column] = value
                self._lowered.add((image, category))
        return scores

    def _candidates(self, key: tuple[Id, Id], ious: np.ndarray) -> list[tuple[int, int, RLE, RLE]]:
        """Row, column and the two masks of every pair that the boundary may lower."""
        truths, found = self._gts[key], self._dts[key]
        best = np.argsort([-detection["score"] for detection in found], kind="mergesort")
        crowd = np.array([truth["iscrowd"] for truth in truths], bool)
        return [
            (int(row), int(column), found[best[row]]["segmentation"], truths[column]["segmentation"])
            for row, column in np.argwhere((ious >= _MIN_SCORE) & ~crowd)
        ]

    def evaluateImg(self, imgId: Id, catId: Id, aRng: list[float], maxDet: int) -> Match | None:
        """Matches of one image and category."""
        key = imgId, catId
        same = key not in self._lowered and not any(truth["own_ignore"] for truth in self._gts[key])
        if self._mask_ious and same:
            return self._matches.get((*key, *aRng))
        return super().evaluateImg(imgId, catId, aRng, maxDet)
