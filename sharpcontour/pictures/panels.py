"""Parts of a picture: an image with its instances, labels, numbered squares, keys.

Sizes are in pixels of the picture. GitHub shows a README about 850 of them wide, so that a picture with two panels is
seen at two thirds of its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.pictures import drawing
from sharpcontour.pictures.drawing import Colour, View
from sharpcontour.pictures.moves import Place

PANEL = 640  # width
TALLEST = 1.4  # height of a panel at most, as a multiple of its width
MARGIN, GAP = 28, 20
TITLE, CAPTION, LABEL = 18.0, 13.0, 11.5  # height of a capital letter
OUTLINE, OUTLINE_NEAR = 2.25, 3.0  # width of contours, on the whole image and on close-ups
FILL = 0.28  # opacity
_MOST_HIDDEN = 0.3  # of a label's area may lie on contours, else it is left out
INK, GREY, RULE, PAPER = (27, 31, 36), (101, 109, 118), (208, 215, 222), (255, 255, 255)
PALETTE: tuple[Colour, ...] = (
    (56, 140, 242),
    (255, 138, 48),
    (28, 190, 150),
    (242, 76, 110),
    (155, 105, 240),
    (250, 200, 40),
    (40, 200, 225),
    (236, 105, 200),
    (125, 205, 60),
    (200, 140, 95),
)
"""Colours of instances, told apart on photographs and from one another."""


@dataclass(frozen=True)
class Label:
    """A line of text on a plate, placed on the canvas in its pixels."""

    text: str
    x: float
    y: float
    width: float
    height: float
    colour: Colour

    def overlaps(self, other: tuple[float, float, float, float]) -> bool:
        """Whether the label touches a box x0, y0, x1, y1."""
        x0, y0, x1, y1 = other
        return self.x < x1 and x0 < self.x + self.width and self.y < y1 and y0 < self.y + self.height


def fitted(detections: Detections, image: np.ndarray) -> Detections:
    """The detections scaled to the pixels of the image."""
    size = (int(image.shape[0]), int(image.shape[1]))
    return detections if detections.size == size else detections.scaled_to(size)


def whole(image: np.ndarray, width: int) -> View:
    """A view of all of the image, as wide as a panel, or as tall as one may be."""
    height = image.shape[0]
    scale = min(width / image.shape[1], TALLEST * width / height)
    return View(0, 0, scale, max(round(image.shape[1] * scale), 1), max(round(height * scale), 1))


def square(place: Place, side: int) -> View:
    """A view of a close-up of a place."""
    return View(place.x, place.y, side / place.side, side, side)


def on_canvas(rings: Rings, view: View) -> list[np.ndarray]:
    """The rings that can be drawn, mapped to the canvas."""
    return [view.place(ring) for ring in rings if len(ring) >= 3 and np.isfinite(ring).all()]


def draw_objects(
    image: np.ndarray,
    view: View,
    objects: Sequence[Rings],
    truth: Sequence[Rings] | None = None,
    width: float = OUTLINE,
) -> np.ndarray:
    """The part of the image that the view shows, with the instances, the first (best) on top.

    The ground truth is white and lies below the contours: where they are right, it is hidden.
    """
    canvas = view.render(image)
    shown = [(on_canvas(rings, view), PALETTE[k % len(PALETTE)]) for k, rings in enumerate(objects)]
    exact = [ring for rings in truth or () for ring in on_canvas(rings, view)]
    for rings, colour in reversed(shown):
        drawing.fill(canvas, rings, colour, FILL)
    drawing.stroke(canvas, exact, INK, width + 1, 0.35)
    drawing.stroke(canvas, [ring for rings, _ in shown for ring in rings], INK, width + 1.5, 0.35)
    drawing.stroke(canvas, exact, PAPER, width - 0.5)
    for rings, colour in reversed(shown):
        drawing.stroke(canvas, rings, colour, width)
    return canvas


def place_labels(
    view: View,
    found: Detections,
    class_names: Sequence[str],
    contours: Sequence[Rings],
    squares: Sequence[Place] = (),
    scores: bool = True,
) -> list[Label]:
    """Class and score of every instance, near its box or in it, where they hide least.

    An instance for which there is no good place goes without.

    Args:
        view: of the whole image.
        found: the instances.
        class_names: of class index 0, 1, ...; where there is none the index is shown.
        contours: what should stay in sight.
        squares: places of the image that stay free.
        scores: whether the scores are told.
    """
    lines = np.zeros((view.height, view.width), np.int32)
    areas = np.full_like(lines, -1)
    for rings in contours:
        cv2.polylines(lines, _pixels(rings, view), True, 1, 5)
    for k in reversed(range(len(found))):
        cv2.fillPoly(areas, _pixels(found.rings[k], view), k)
    taken = [_on_view(view, place) for place in squares]
    labels: list[Label] = []
    boxes = view.place(found.boxes.numpy().reshape(-1, 2)).reshape(-1, 4).tolist()
    for k, box in enumerate(boxes):
        index = int(found.labels[k])
        name = class_names[index] if index < len(class_names) else str(index)
        text = f"{name} {float(found.scores[k]):.2f}" if scores else name
        options = _options(text, box, PALETTE[k % len(PALETTE)])
        free = [label for label in options if _fits(label, view) and not any(map(label.overlaps, taken))]
        hides = [_hides(label, lines, areas, k) for label in free]
        if free and min(hides) < _MOST_HIDDEN:
            label = free[int(np.argmin([hidden + 0.005 * n for n, hidden in enumerate(hides)]))]  # the first look best
            labels.append(label)
            taken.append((label.x, label.y, label.x + label.width, label.y + label.height))
    return labels


def _pixels(rings: Rings, view: View) -> list[np.ndarray]:
    return [np.round(ring.clip(-9999, 9999)).astype(np.int32) for ring in on_canvas(rings, view)]


def _options(text: str, box: Sequence[float], colour: Colour) -> list[Label]:
    """Above, below, beside and in the box."""
    x0, y0, x1, y1 = box
    wide, high = drawing.text_width(text, LABEL) + 12, LABEL + 10
    middle, right, level = (x0 + x1 - wide) / 2, x1 - wide, (y0 + y1 - high) / 2
    places = [(x, y) for y in (y0 - high - 4, y1 + 4) for x in (x0, right, middle)]
    places += [(x1 + 4, level), (x0 - wide - 4, level), (x0 + 4, y0 + 4), (middle, level), (right - 4, y1 - high - 4)]
    return [Label(text, x, y, wide, high, colour) for x, y in places]


def _fits(label: Label, view: View) -> bool:
    across = label.x >= 2 and label.x + label.width <= view.width - 2
    return across and label.y >= 2 and label.y + label.height <= view.height - 2


def _hides(label: Label, lines: np.ndarray, areas: np.ndarray, instance: int) -> float:
    """Share of the label that lies on contours and, counting less, on other instances, whose it would seem to be."""
    part = np.s_[int(label.y) : int(label.y + label.height), int(label.x) : int(label.x + label.width)]
    others = (areas[part] >= 0) & (areas[part] != instance)
    return float(lines[part].mean() + 0.3 * others.mean())


def draw_labels(canvas: np.ndarray, labels: Sequence[Label]) -> None:
    """Draw labels, plates with text, on the canvas."""
    for label in labels:
        plate = drawing.rounded(label.x, label.y, label.x + label.width, label.y + label.height, 4)
        drawing.fill(canvas, [plate], label.colour, 0.92)
        light = np.dot(label.colour, (0.299, 0.587, 0.114)) > 140
        drawing.write(canvas, label.text, label.x + 6, label.y + 5 + LABEL, LABEL, INK if light else PAPER)


def mark(canvas: np.ndarray, view: View, place: Place, number: int | None = None) -> None:
    """Draw a square around a place, with its number at the corner."""
    x0, y0, x1, y1 = _on_view(view, place)
    frame = [drawing.rounded(x0, y0, x1, y1, 4)]
    drawing.stroke(canvas, frame, INK, 3.5, 0.6)
    drawing.stroke(canvas, frame, PAPER, 2)
    if number is not None:
        badge(canvas, number, float(np.clip(x0, 13, view.width - 13)), float(np.clip(y0, 13, view.height - 13)))


def _on_view(view: View, place: Place) -> tuple[float, float, float, float]:
    corners = view.place(np.array([[place.x, place.y], [place.x + place.side, place.y + place.side]]))
    (x0, y0), (x1, y1) = corners.clip(1.5, (view.width - 1.5, view.height - 1.5)).tolist()
    return x0, y0, x1, y1


def badge(canvas: np.ndarray, number: int, x: float, y: float) -> None:
    """Draw a number on a disc."""
    centre, text = np.array([[x, y]]), str(number)
    drawing.dots(canvas, centre, PAPER, 12)
    drawing.dots(canvas, centre, INK, 10.5)
    drawing.write(canvas, text, x - drawing.text_width(text, 11, True) / 2, y + 5.5, 11, PAPER, bold=True)


def paste(sheet: np.ndarray, panel: np.ndarray, x: int, y: int) -> None:
    """Put a panel on the sheet, with a hairline around it."""
    height, width = panel.shape[:2]
    sheet[y : y + height, x : x + width] = panel
    drawing.stroke(sheet, [drawing.rounded(x, y, x + width, y + height, 0)], RULE, 1)


def line_key(sheet: np.ndarray, text: str, x: float, y: float, colour: Colour) -> float:
    """Draw a piece of line and what it means, with the baseline at y; returns where the text ends."""
    line = [np.array([[x + 3, y - CAPTION / 2], [x + 27, y - CAPTION / 2]])]
    drawing.stroke(sheet, line, GREY, 5.5, closed=False)
    drawing.stroke(sheet, line, colour, 3, closed=False)
    return drawing.write(sheet, text, x + 38, y, CAPTION, GREY)
