"""Single objects as two methods drew them, side by side: where the second gained most, usually, and lost most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from eval.boundary import boundary_iou
from sharpcontour.contours.rasterize import rings_to_masks, rings_to_rles
from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.pictures import drawing, panels
from sharpcontour.pictures.drawing import View
from sharpcontour.pictures.panels import CAPTION, GAP, MARGIN, PAPER

RULES = ("largest gain", "median", "largest loss")
FOUND = 0.5  # mask IoU from which an object counts as found
_SIDE = 210  # of a picture, pixels
_BETWEEN = 4


@dataclass
class Pair:
    """One object as two methods drew it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        first, second: as the two methods have it, in pixels of the image.
        truth: its outline.
        ious: Boundary IoU of the first and of the second with it.
    """

    image: np.ndarray
    first: Rings
    second: Rings
    truth: Rings
    ious: tuple[float, float]

    @property
    def gain(self) -> float:
        """How much the second mask gains over the first, in Boundary IoU."""
        return self.ious[1] - self.ious[0]


def find_pairs(image: np.ndarray, first: Detections, second: Detections, truth: Sequence[Rings]) -> list[Pair]:
    """The objects of an image that both methods found, each by the mask that fits it best."""
    if not truth or not len(first) or not len(second):
        return []
    exact = rings_to_rles(truth, *first.size)
    overlaps = [coco_mask.iou(found.rles(), exact, [0] * len(exact)) for found in (first, second)]
    pairs = []
    for g, rings in enumerate(truth):
        best = [int(iou[:, g].argmax()) for iou in overlaps]
        if min(iou[k, g] for iou, k in zip(overlaps, best, strict=True)) < FOUND:
            continue
        shown = first.rings[best[0]], second.rings[best[1]]
        mask, one, other = rings_to_masks([rings, *shown], *first.size)
        pairs.append(Pair(image, *shown, rings, (boundary_iou(mask, one), boundary_iou(mask, other))))
    return pairs


def choose(pairs: Sequence[Pair], count: int) -> dict[str, list[Pair]]:
    """``count`` objects for each of :data:`RULES`: both ends and the middle of all objects in the order of gain."""
    order = sorted(pairs, key=lambda pair: -pair.gain)
    middle = max((len(order) - count) // 2, 0)
    parts = order[:count], order[middle : middle + count], order[::-1][:count]
    return dict(zip(RULES, parts, strict=True))


def sheet(chosen: dict[str, list[Pair]], titles: tuple[str, str]) -> np.ndarray:
    """Draw a row of objects for each rule, each object twice; the ground truth is a white line."""
    columns = max(len(pairs) for pairs in chosen.values())
    wide, tall = 2 * _SIDE + _BETWEEN, _SIDE + round(2.4 * CAPTION)
    top = MARGIN + round(2.4 * CAPTION)
    size = top + len(chosen) * (tall + GAP) - GAP + MARGIN, 2 * MARGIN + columns * (wide + GAP) - GAP
    canvas = np.full((*size, 3), PAPER, np.uint8)
    drawing.write(canvas, f"left: {titles[0]}    right: {titles[1]}", MARGIN, MARGIN + CAPTION, CAPTION, bold=True)
    for row, (rule, pairs) in enumerate(chosen.items()):
        for column, pair in enumerate(pairs):
            x, y = MARGIN + column * (wide + GAP), top + row * (tall + GAP)
            caption = f"{rule}: Boundary IoU {100 * pair.ious[0]:.0f} -> {100 * pair.ious[1]:.0f}"
            drawing.write(canvas, caption, x, y + CAPTION, 0.8 * CAPTION)
            view = _around(pair.truth)
            for k, rings in enumerate((pair.first, pair.second)):
                panel = panels.draw_objects(pair.image, view, [rings], [pair.truth])
                panels.paste(canvas, panel, x + k * (_SIDE + _BETWEEN), y + round(1.9 * CAPTION))
    return canvas


def _around(rings: Rings) -> View:
    """A square around an object, with a margin."""
    points = np.concatenate(rings)
    low, high = points.min(0), points.max(0)
    side = 1.3 * max(float((high - low).max()), 8.0)
    x, y = (low + high) / 2 - side / 2
    return View(float(x), float(y), _SIDE / side, _SIDE, _SIDE)
