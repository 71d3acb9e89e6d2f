"""What is worth showing: the detections fit to be drawn, and the images that refinement changed most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pycocotools import mask as coco_mask

from eval.boundary import boundary_iou
from sharpcontour.contours.rasterize import rings_to_masks, rings_to_rles
from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.pictures.moves import check_pair

if TYPE_CHECKING:
    from torch import Tensor

_SAME = 0.6  # IoU of two boxes that are taken to mean one object, whatever their classes


def confident(detections: Detections, threshold: float) -> Detections:
    """The detections fit to be drawn: scores of at least ``threshold``, and the best of several boxes on one object.

    Coarse contours and evolution steps come along.
    """
    from torchvision.ops import nms  # here: the other pictures of this folder, and --help, need no torchvision

    index = (detections.scores >= threshold).nonzero()[:, 0]
    index = index[nms(detections.boxes[index], detections.scores[index], _SAME)]
    return _subset(detections, index)


def _subset(detections: Detections, index: Tensor) -> Detections:
    keep = index.tolist()
    coarse, steps = detections.coarse, detections.steps
    return replace(
        detections,
        boxes=detections.boxes[index],
        scores=detections.scores[index],
        labels=detections.labels[index],
        shapes=[detections.rings[k] for k in keep],
        coarse=None if coarse is None else _subset(coarse, index),
        steps=None if steps is None else [[objects[k] for k in keep] for objects in steps],
    )


def select_examples(
    coarse: Sequence[Detections],
    refined: Sequence[Detections],
    count: int,
    truth: Sequence[Sequence[Rings]] | None = None,
    threshold: float = 0.3,
) -> list[int]:
    """The images that refinement improved most, the best first.

    With ground truth, by the gain in Boundary IoU of the objects found (mask IoU of at least 0.5); without, by how much
    the masks changed, for better or worse. Few objects on an image count a little less than many.

    Args:
        coarse: detections of each image before refinement.
        refined: the same instances after it.
        count: how many images at most.
        truth: for each image the rings of its objects, in the pixels of the detections.
        threshold: detections with a lower score do not count.

    Returns:
        Indices of images that have a detection.
    """
    gains: dict[int, float] = {}
    for index, (before, after) in enumerate(zip(coarse, refined, strict=True)):
        check_pair(before, after)
        kept = confident(replace(after, coarse=before), threshold)
        if len(kept) == 0 or kept.coarse is None:
            continue
        values = _changes(kept.coarse, kept) if truth is None else _gains(kept.coarse, kept, truth[index])
        gains[index] = sum(values) / (len(values) + 1)
    return sorted(gains, key=lambda index: -gains[index])[:count]


def _changes(coarse: Detections, refined: Detections) -> list[float]:
    pairs = zip(coarse.rles(), refined.rles(), strict=True)
    return [1 - float(coco_mask.iou([after], [before], [0])[0, 0]) for before, after in pairs]


def _gains(coarse: Detections, refined: Detections, truth: Sequence[Rings]) -> list[float]:
    if not truth:
        return []
    ious = coco_mask.iou(coarse.rles(), rings_to_rles(truth, *coarse.size), [0] * len(truth))
    gains = []
    for g, rings in enumerate(truth):
        k = int(ious[:, g].argmax())
        if ious[k, g] >= 0.5:
            exact, before, after = rings_to_masks([rings, coarse.rings[k], refined.rings[k]], *coarse.size)
            gains.append(boundary_iou(exact, after) - boundary_iou(exact, before))
    return gains
