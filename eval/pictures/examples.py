"""What is worth showing: the places where refinement moved a contour most, and the images it changed most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import nms

from eval.boundary import boundary_iou
from sharpcontour.contours.rasterize import rings_to_masks, rings_to_rles
from sharpcontour.contours.types import Ring, Rings
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError

_POINTS = 512  # vertices of a ring that are looked at
_LEAST_MOVE = 0.5  # px of the image; less cannot be seen
_WINDOW = 0.45  # side of a close-up, as a share of the square root of the object's box area
_INWARDS = 0.22  # how far it is shifted from the vertex into the object, as a share of its side
_SAME = 0.6  # IoU of two boxes that are taken to mean one object, whatever their classes
_AGAIN = 0.6  # how much less a further place on the same object counts


@dataclass(frozen=True)
class Place:
    """A square of an image in which a contour moved.

    Attributes:
        instance: whose contour.
        x, y: its top left corner, continuous pixels.
        side: its length, pixels.
        move: how far the contour moved, pixels.
    """

    instance: int
    x: float
    y: float
    side: float
    move: float

    def overlaps(self, other: Place) -> bool:
        """Whether the two squares share more than a tenth of the smaller one."""
        wide = min(self.x + self.side, other.x + other.side) - max(self.x, other.x)
        high = min(self.y + self.side, other.y + other.side) - max(self.y, other.y)
        return max(wide, 0) * max(high, 0) > 0.1 * min(self.side, other.side) ** 2


def largest_moves(coarse: Detections, refined: Detections, count: int) -> list[Place]:
    """Up to ``count`` places where refined contours are furthest from the coarse ones, spread over the instances.

    A move counts as the share of its close-up that it crosses, times the score; further places on an object already
    chosen count less. Whether a move was for the better plays no part.

    Raises:
        InputError: if the two are not the same instances of the same image.
    """
    check_pair(coarse, refined)
    candidates = [
        place for k in range(len(refined)) for place in moves(coarse.rings[k], refined.rings[k], refined.size, k)
    ]
    scores = refined.scores.tolist()
    chosen: list[Place] = []
    while candidates and len(chosen) < count:
        taken = [place.instance for place in chosen]
        best = max(candidates, key=lambda p: p.move / p.side * scores[p.instance] * _AGAIN ** taken.count(p.instance))
        chosen.append(best)
        candidates = [place for place in candidates if not place.overlaps(best)]
    return chosen


def check_pair(coarse: Detections, refined: Detections) -> None:
    """Raise InputError unless both hold the same number of instances on images of one size."""
    if len(coarse) != len(refined) or coarse.size != refined.size:
        raise InputError(
            f"coarse and refined detections must be of the same instances: {len(coarse)} on {coarse.size} there, "
            f"{len(refined)} on {refined.size} here"
        )


def moves(coarse: Rings, refined: Rings, size: tuple[int, int], instance: int = 0) -> list[Place]:
    """Where one object's contour moved, the furthest first; of places that overlap only the first.

    Args:
        coarse: before.
        refined: after.
        size: (height, width) of the image.
        instance: for :attr:`Place.instance`.
    """
    before = [ring for ring in coarse if len(ring) >= 3 and np.isfinite(ring).all()]
    after = [ring for ring in refined if len(ring) >= 3 and np.isfinite(ring).all()]
    vertices = [ring[:: max(len(ring) // _POINTS, 1)] for ring in after]
    if not before or not vertices:
        return []
    points = np.concatenate(vertices).astype(np.float64)
    extent = points.max(0) - points.min(0)
    side = float(np.clip(_WINDOW * extent.prod() ** 0.5, min(size) / 10, min(size) / 3))
    # More of the object in sight: it lies where its middle is.
    inwards = (points.max(0) + points.min(0)) / 2 - points
    inwards /= np.maximum(np.hypot(*inwards.T), 1e-9)[:, None]
    corners = (points + (_INWARDS * inwards - 0.5) * side).clip(0, (size[1] - side, size[0] - side))
    far = np.concatenate([_distances(part, before) for part in vertices])
    found: list[Place] = []
    for index in np.argsort(-far, kind="stable"):
        if far[index] < _LEAST_MOVE:
            break
        place = Place(instance, float(corners[index, 0]), float(corners[index, 1]), side, float(far[index]))
        if not any(place.overlaps(other) for other in found):
            found.append(place)
    return found


def _distances(points: np.ndarray, rings: Sequence[Ring]) -> np.ndarray:
    """Distance of each point (n, 2) to the nearest edge of the rings."""
    begin = np.concatenate(rings).astype(np.float64)
    edge = np.concatenate([np.roll(ring, -1, 0) for ring in rings]).astype(np.float64) - begin
    length = np.maximum((edge**2).sum(1), 1e-12)
    to = points[:, None].astype(np.float64) - begin
    part = ((to * edge).sum(-1) / length).clip(0, 1)
    return np.hypot(*np.moveaxis(to - part[..., None] * edge, -1, 0)).min(1)


def confident(detections: Detections, threshold: float) -> Detections:
    """What is fit to be drawn: a score of at least ``threshold``, and of several boxes on one object the best.

    Coarse contours and evolution steps come along.
    """
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
