"""COCO mask AP and Boundary AP, number for number those of pycocotools.

Detections are sized by their mask, not by their box: APs, APm and APl differ from tools that leave "bbox" in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from eval.accumulation import Curves, accumulate, mean_percent, per_category, precisions_by_size
from eval.bootstrap import replicates
from eval.boundary import band_width, many_boundary_ious
from eval.checks import CheckedDetection, GroundTruth
from eval.matching import PARAMS, Arranged, Matches, Overlaps, arrange, mask_overlaps, match


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
    detections: Sequence[CheckedDetection],
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
        processes: at most, that make boundaries; the numbers do not depend on it.
        bootstrap: draws of the images for ``replicates``.
    """
    areas, limits = PARAMS.areaRng, PARAMS.maxDets
    entries = arrange(ground_truth, ground_truth.coco.dataset["annotations"], detections, limits[-1])
    overlaps = mask_overlaps(entries)
    found: dict[str, Matches] = {}
    if "segm" in metrics:  # pycocotools takes no notice of an annotation's own "ignore", the Boundary IoU API does
        found["segm"] = match(entries, overlaps, entries.crowd, areas)
    if "boundary" in metrics:
        widths = [band_width(*ground_truth.sizes[image], dilation_ratio) for image in entries.images]
        lowered = _by_boundaries(entries, overlaps, np.array(widths, np.int64), processes)
        found["boundary"] = match(entries, lowered, entries.crowd | entries.own_ignore, areas)
    scores = {}
    for metric, matches in found.items():
        curves = accumulate(matches, limits)
        names = per_category(curves, ground_truth.category_names)
        scores[metric] = Scores(_summary(curves), names, replicates(matches, bootstrap))
    return scores


def _by_boundaries(entries: Arranged, overlaps: Overlaps, widths: np.ndarray, processes: int) -> Overlaps:
    """The same overlaps, each scored min(mask IoU, boundary IoU), and with a crowd by its mask IoU alone.

    A boundary IoU only lowers a score, and scores below the lowest threshold match nothing, so boundaries are made only
    for masks in pairs above it. That changes none of the results.
    """
    ious = overlaps.ious.copy()
    pairs = np.flatnonzero(~entries.crowd[overlaps.truth])
    found, truth = overlaps.found[pairs], overlaps.truth[pairs]
    first, second = [entries.rles[k] for k in found], [entries.truth_rles[k] for k in truth]
    boundaries = many_boundary_ious(first, second, widths[entries.image[found]], processes)
    ious[pairs] = np.minimum(ious[pairs], boundaries)
    return Overlaps(overlaps.found, overlaps.truth, ious)


def _summary(curves: Curves) -> dict[str, float | None]:
    recall = curves.recall
    numbers = {
        **precisions_by_size(curves),
        "AR1": recall[:, :, 0, 0],
        "AR10": recall[:, :, 0, 1],
        "AR100": recall[:, :, 0, 2],
        "ARs": recall[:, :, 1, 2],
        "ARm": recall[:, :, 2, 2],
        "ARl": recall[:, :, 3, 2],
    }
    return {name: mean_percent(values) for name, values in numbers.items()}
