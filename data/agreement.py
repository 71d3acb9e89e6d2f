"""Whether the box of an annotation and its segmentation mean the same object, and where not, why that may be.

Tools write boxes in several ways, COCO's is x, y, width, height in pixels. Nothing is changed here: a wrong guess would
do more harm than a wrong box. Boxes are x, y, width, height unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

XYWH = tuple[float, float, float, float]  # left, top, width, height in pixels, as COCO writes a box

SAME = 2.0  # px that the sides of boxes of the same object may differ, whatever its size
DOUBTFUL, FITS = 0.8, 0.95  # IoU below which another reading of the box is tried, and from which that is the better one
APART = 0.3  # IoU below which box and segmentation disagree though no other reading fits

DISAGREES = "box that disagrees with its segmentation"
UNITS = "segmentation within a pixel of the upper left corner, its coordinates may be in units of 0 to 1"

_READINGS: dict[str, Callable[[XYWH, int, int], XYWH]] = {
    "x0, y0, x1, y1": lambda box, h, w: (box[0], box[1], box[2] - box[0], box[3] - box[1]),
    "centre, width, height": lambda box, h, w: (box[0] - box[2] / 2, box[1] - box[3] / 2, box[2], box[3]),
    "y, x, height, width": lambda box, h, w: (box[1], box[0], box[3], box[2]),
    "in shares of the image": lambda box, h, w: (box[0] * w, box[1] * h, box[2] * w, box[3] * h),
    # As some of LVIS v0.5 are, whose images were turned.
    "of the image turned left": lambda box, h, w: _turned(box, h, w, False),
    "of the image turned right": lambda box, h, w: _turned(box, h, w, True),
}


def disagreement(box: XYWH, extent: XYWH, height: int, width: int) -> str:
    """How a box and its segmentation disagree, as a kind of problem in words; "" where they agree.

    Args:
        box: of the annotation.
        extent: the box around its segmentation.
        height, width: of the image, pixels.
    """
    x, y, w, h = box
    u, v, du, dv = extent
    if abs(x - u) <= SAME and abs(y - v) <= SAME and abs(x + w - u - du) <= SAME and abs(y + h - v - dv) <= SAME:
        return ""  # nearly always
    overlap = _iou(box, extent, height, width)
    if overlap < DOUBTFUL:
        for name, reading in _READINGS.items():
            if _iou(reading(box, height, width), extent, height, width) >= FITS:
                return f"{DISAGREES}, it may be {name}"
    return DISAGREES if overlap < APART else ""


def in_unit_square(extent: XYWH, height: int, width: int) -> bool:
    """Whether what polygons cover lies within a pixel of the upper left corner, in an image that is larger."""
    x, y, w, h = extent
    return x + w <= 1 and y + h <= 1 < min(height, width) and x >= 0 and y >= 0


def _turned(box: XYWH, height: int, width: int, right: bool) -> XYWH:
    """The box after a quarter turn of an image that is then stretched to the size it had."""
    x, y, w, h = box[0] / width, box[1] / height, box[2] / width, box[3] / height
    x, y, w, h = (1 - y - h, x, h, w) if right else (y, 1 - x - w, h, w)
    return x * width, y * height, w * width, h * height


def _iou(a: XYWH, b: XYWH, height: int, width: int) -> float:
    """IoU of two boxes, both cut off at the border of the image; 0 where one is empty then."""
    ax, ay, aw, ah = _clipped(a, height, width)
    bx, by, bw, bh = _clipped(b, height, width)
    common = max(min(ax + aw, bx + bw) - max(ax, bx), 0.0) * max(min(ay + ah, by + bh) - max(ay, by), 0.0)
    return common / (aw * ah + bw * bh - common) if common > 0 else 0.0


def _clipped(box: XYWH, height: int, width: int) -> XYWH:
    x0, x1 = (min(max(side, 0.0), float(width)) for side in (box[0], box[0] + box[2]))
    y0, y1 = (min(max(side, 0.0), float(height)) for side in (box[1], box[1] + box[3]))
    return x0, y0, max(x1 - x0, 0.0), max(y1 - y0, 0.0)
