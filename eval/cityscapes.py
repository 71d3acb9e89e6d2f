"""Cityscapes' instance AP, as its official tool (evalInstanceLevelSemanticLabeling) computes it.

It differs from COCO's AP: regions of a group and void pixels excuse detections, objects below 100 pixels are no
targets, an IoU must exceed the threshold, and precision is integrated over the scores themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from eval.checks import CheckedAnnotation, CheckedDetection, GroundTruth
from eval.coco import Scores
from sharpcontour.errors import InputError
from sharpcontour.io.images import read_values
from sharpcontour.masks.run_lengths import RLE, crop_to_rle

THRESHOLDS = np.arange(0.5, 1.0, 0.05)
MIN_PIXELS = 100  # of a target


@dataclass
class _Outcome:
    """What one image contributes for one class and threshold.

    Attributes:
        scores: of the detections that count.
        correct: (len(scores),) bool.
        missed: targets without a detection.
    """

    scores: np.ndarray
    correct: np.ndarray
    missed: int


@dataclass
class _Pairs:
    """Detections of one class on one image, D, and its annotated regions, G.

    Attributes:
        scores: (D,).
        sizes: (D,) pixels.
        common: (D, G) pixels.
        regions: (G,) pixels.
        group: (G,) bool, several objects in one region.
        void: (D,) pixels of each detection that nobody labelled.
    """

    scores: np.ndarray
    sizes: np.ndarray
    common: np.ndarray
    regions: np.ndarray
    group: np.ndarray
    void: np.ndarray


def evaluate_cityscapes(ground_truth: GroundTruth, detections: Sequence[CheckedDetection]) -> Scores:
    """AP and AP50, and AP by class; None where a class has no target.

    Args:
        ground_truth: annotations as :mod:`data.cityscapes` makes them: groups are crowds, and every image has its
            "void" pixels as an RLE.
        detections: as :func:`eval.checks.check_detections` gives them.

    Raises:
        InputError: where an image lacks its void pixels: these are no Cityscapes annotations.
    """
    outcomes = defaultdict(list)
    truths, found = ground_truth.coco.imgToAnns, ground_truth.index(detections).imgToAnns
    for key, image in ground_truth.images.items():
        if "void" not in image:
            raise InputError(
                f"{ground_truth.name}: image id {key} has no 'void'; the metric cityscapes needs annotations that "
                "scripts/prepare_data.py cityscapes made, or the folder gtFine/val"
            )
        for category in ground_truth.category_names:
            regions = [one for one in truths.get(key, ()) if one["category_id"] == category]
            mine = [one for one in found.get(key, ()) if one["category_id"] == category]
            pairs = _pairs(mine, regions, image["void"])
            for index, threshold in enumerate(THRESHOLDS.tolist()):
                outcomes[category, index].append(_judge(pairs, threshold))
    values = np.array(
        [[_average_precision(outcomes[c, i]) for i in range(len(THRESHOLDS))] for c in ground_truth.category_names]
    ).reshape(-1, len(THRESHOLDS))
    names = ground_truth.category_names.values()
    by_class = {name: _percent(row) for name, row in zip(names, values, strict=True)}
    return Scores({"AP": _percent(values), "AP50": _percent(values[:, 0])}, by_class)


def _percent(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return 100.0 * float(defined.mean()) if defined.size else None


def _pairs(found: Sequence[CheckedDetection], regions: Sequence[CheckedAnnotation], void: RLE) -> _Pairs:
    masks, targets = [one["segmentation"] for one in found], [one["segmentation"] for one in regions]
    sizes = np.array([one["area"] for one in found], np.float64)
    return _Pairs(
        np.array([one["score"] for one in found], np.float64)[sizes > 0],
        sizes[sizes > 0],
        _common(masks, targets, sizes)[sizes > 0],
        np.array([coco_mask.area(rle) for rle in targets], np.float64),
        np.array([one["iscrowd"] for one in regions], bool),
        _common(masks, [void], sizes)[sizes > 0, 0],
    )


def _common(masks: list[RLE], others: list[RLE], sizes: np.ndarray) -> np.ndarray:
    """(D, G) pixels that each mask shares with each of the others."""
    if not masks or not others:
        return np.zeros((len(masks), len(others)))
    # Against a "crowd" pycocotools divides by the detection's size: times this it is whole again.
    share = coco_mask.iou(masks, others, [1] * len(others)).reshape(len(masks), len(others))
    return np.rint(share * sizes[:, None])


def _judge(pairs: _Pairs, threshold: float) -> _Outcome:
    iou = pairs.common / (pairs.sizes[:, None] + pairs.regions - pairs.common)
    overlaps = iou > threshold
    small = pairs.regions < MIN_PIXELS
    targets = ~pairs.group & ~small
    scores, correct = [], []
    for column in np.flatnonzero(targets & overlaps.any(0)):
        matches = np.sort(pairs.scores[overlaps[:, column]])[::-1]  # the best one is right, others are not
        scores.append(matches)
        correct.append(np.arange(len(matches)) == 0)
    alone = ~overlaps.any(1)
    # As in the tool a small group counts twice.
    excused = pairs.void + pairs.common @ (pairs.group.astype(np.float64) + small)
    wrong = alone & (excused / pairs.sizes <= threshold)
    scores.append(pairs.scores[wrong])
    correct.append(np.zeros(int(wrong.sum()), bool))
    return _Outcome(np.concatenate(scores), np.concatenate(correct), int((targets & ~overlaps.any(0)).sum()))


def _average_precision(outcomes: list[_Outcome]) -> float:
    """Area under the curve of one class at one threshold; nan without targets."""
    scores, correct = (np.concatenate([getattr(one, key) for one in outcomes]) for key in ("scores", "correct"))
    missed = sum(one.missed for one in outcomes)
    if missed + correct.sum() == 0:
        return float("nan")
    if len(scores) == 0:
        return 0.0
    order = np.argsort(scores, kind="stable")
    _, first = np.unique(scores[order], return_index=True)
    kept = len(scores) - first  # detections at or above each score
    right = correct[order][::-1].cumsum()[::-1][first]
    precision = np.append(right / kept, 1.0)
    recall = np.append(right / (correct.sum() + missed), 0.0)
    around = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ ((around[:-2] - around[2:]) / 2))


def read_submission(folder: str | Path, ground_truth: GroundTruth) -> list[dict[str, object]]:
    """Detections from Cityscapes' own format: for every image a text file, for every detection a line and a PNG.

    A line is a mask's path beside the text file, a label id and a score; in the mask every pixel but 0 belongs to the
    object. Detections of classes that are not scored are left out, as in the tool.

    Args:
        folder: searched with all folders in it.
        ground_truth: its images' file names say which text file is whose: <city>_<seq>_<frame>*.txt.

    Raises:
        InputError: where an image has no text file or several, or a line or a mask cannot be read.
    """
    folder = Path(folder).resolve()
    names = sorted(folder.rglob("*.txt"))
    jobs = []
    for key, image in ground_truth.images.items():
        stem = Path(str(image.get("file_name", key))).name.removesuffix("_leftImg8bit.png")
        mine = [path for path in names if fnmatch(path.name, f"{stem}*.txt")]
        if len(mine) != 1:
            raise InputError(
                f"{folder}: {len(mine)} files {stem}*.txt; every image needs one, empty where nothing was found"
            )
        jobs += [(key, *entry) for entry in _lines(mine[0], folder) if entry[1] in ground_truth.category_names]
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter's lock
        masks = pool.map(lambda job: _read_mask(job[1], ground_truth.sizes[job[0]]), jobs)
        return [
            {"image_id": key, "category_id": label, "score": score, "segmentation": mask}
            for (key, _, label, score), mask in zip(jobs, masks, strict=True)
        ]


def _lines(path: Path, folder: Path) -> list[tuple[Path, int, float]]:
    """Mask file, label id and score of every line; of a mask that is named twice the last one."""
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(), 1):
        parts = line.split(" ")
        try:
            name, label, score = parts[0], int(float(parts[1])), float(parts[2])
        except (IndexError, ValueError):
            parts = []
        if len(parts) != 3:
            raise InputError(f"{path}: line {number} is not a mask file, a label id and a score: {line[:80]!r}")
        mask = (path.parent / name).resolve()
        if Path(name).is_absolute() or not mask.is_relative_to(folder):
            raise InputError(f"{path}: line {number} names a mask outside {folder}: {name}; use relative paths")
        found[mask] = label, score
    return [(mask, label, score) for mask, (label, score) in found.items()]


def _read_mask(path: Path, size: tuple[int, int]) -> RLE:
    if not path.is_file():
        raise InputError(f"{path}: no such mask; a text file names it")
    mask = read_values(path, size)
    if mask.ndim != 2:
        raise InputError(f"{path}: is no image of one channel; write masks as grey PNG files")
    return crop_to_rle(mask != 0, 0, 0, *size)
