"""One contour, iteration by iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sharpcontour.contours.types import Rings
from sharpcontour.pictures import drawing, panels
from sharpcontour.pictures.drawing import Colour, View
from sharpcontour.pictures.moves import moves
from sharpcontour.pictures.panels import CAPTION, GAP, GREY, INK, MARGIN, PALETTE, PANEL, PAPER, TALLEST

_LINE, _BEFORE = PALETTE[0], PALETTE[7]
_MOVED, _FLIPPED, _REST = PALETTE[1], (60, 190, 90), PAPER
_WIDEST = 420  # px of one panel
_STILL = 0.05  # px; a vertex that moved less is at rest
_DOT = (1.2, 5.0)  # px, least and greatest radius


@dataclass
class _Step:
    """A contour after one iteration, and of each ring the colours of its vertices."""

    rings: Rings
    before: Rings
    colours: list[list[Colour]]


def evolution(
    image: np.ndarray,
    steps: Sequence[Rings],
    flipped: Sequence[Sequence[np.ndarray]] | None = None,
    *,
    truth: Rings | None = None,
    width: int = 2 * PANEL + GAP,
) -> np.ndarray:
    """The evolution of one instance: C(0), C(1), ... from left to right, and below the place that moved most, enlarged.

    Args:
        image: what was detected on.
        steps: the rings of the instance at the beginning and after each iteration, in pixels of the image.
        flipped: for each iteration and ring (N,) bool, the vertices that reached a flipping point in it. Without them
            vertices are told apart by whether they moved.
        truth: rings of the ground-truth object, drawn in white.
        width: of all panels together in pixels.

    Returns:
        The picture; margins come on top of the width.
    """
    count = max(len(steps), 1)
    panel = min((width - (count - 1) * GAP) // count, _WIDEST)
    view = around([ring for rings in steps for ring in rings], image, panel)
    places = moves(steps[0], steps[-1], (image.shape[0], image.shape[1]))[:1] if len(steps) > 1 else []
    top = MARGIN + round(1.9 * CAPTION)
    below = top + view.height + GAP // 2
    key = below + (panel + GAP // 2 if places else 0) + round(1.6 * CAPTION)
    sheet = np.full((key + MARGIN, 2 * MARGIN + count * panel + (count - 1) * GAP, 3), PAPER, np.uint8)
    for n, step in enumerate(_colour(steps, flipped)):
        x = MARGIN + n * (panel + GAP)
        drawing.write(sheet, f"n = {n}" if n else "initial", x, MARGIN + CAPTION, CAPTION, bold=True)
        canvas = _draw(image, view, step, truth)
        for place in places:
            panels.mark(canvas, view, place)
            panels.paste(sheet, _draw(image, panels.square(place, panel), step, truth), x, below)
        panels.paste(sheet, canvas, x + (panel - view.width) // 2, top)
    _key(sheet, key, flipped is not None, truth is not None)
    return sheet


def _colour(steps: Sequence[Rings], flipped: Sequence[Sequence[np.ndarray]] | None) -> list[_Step]:
    result = []
    for n, rings in enumerate(steps):
        before = steps[n - 1] if n else []
        colours = []
        for r, ring in enumerate(rings):
            moved = np.zeros(len(ring), bool)
            if n:
                comparable = r < len(before) and len(before[r]) == len(ring)  # else resampled
                moved = np.hypot(*(ring - before[r]).T) > _STILL if comparable else ~moved
            flip = flipped[n - 1][r] if n and flipped is not None else np.zeros(len(ring), bool)
            colours.append([_FLIPPED if f else _MOVED if m else _REST for f, m in zip(flip, moved, strict=True)])
        result.append(_Step(rings, before, colours))
    return result


def around(rings: Rings, image: np.ndarray, width: int) -> View:
    """The box of the rings and some of what is around them, neither very wide nor very tall."""
    limit = np.array(image.shape[1::-1], np.float64)
    usable = [ring for ring in rings if len(ring) and np.isfinite(ring).all()]
    points = np.concatenate(usable).clip(0, limit) if usable else np.array([[0, 0], limit])
    low, high = points.min(0), points.max(0)
    middle, extent = (low + high) / 2, np.maximum((high - low) * 1.2, 4)
    extent = np.minimum(np.maximum(extent, extent[::-1] * 0.75), limit)
    x, y = (middle - extent / 2).clip(0, limit - extent)
    scale = min(width / extent[0], TALLEST * width / extent[1])
    return View(float(x), float(y), float(scale), *(max(round(float(side * scale)), 1) for side in extent))


def _draw(image: np.ndarray, view: View, step: _Step, truth: Rings | None) -> np.ndarray:
    canvas = view.render(image)
    rings = panels.on_canvas(step.rings, view)
    drawing.fill(canvas, rings, _LINE, 0.15)
    before = panels.on_canvas(step.before, view)
    drawing.stroke(canvas, before, _BEFORE, 1.5, 0.75)
    if truth is not None:
        exact = panels.on_canvas(truth, view)
        drawing.stroke(canvas, exact, INK, 3.5, 0.5)
        drawing.stroke(canvas, exact, PAPER, 2)
    drawing.stroke(canvas, rings, INK, 3.5, 0.4)
    drawing.stroke(canvas, rings, _LINE, 2)
    for ring, colours in zip(step.rings, step.colours, strict=True):
        points = view.place(ring)
        spacing = np.median(np.hypot(*(np.roll(points, -1, 0) - points).T)) if len(points) else 0.0
        radius = float(np.clip(0.23 * spacing, *_DOT))
        for colour in (_REST, _MOVED, _FLIPPED):
            chosen = points[[c == colour for c in colours]]
            drawing.dots(canvas, chosen, INK, radius + 0.5 + radius / 8)
            drawing.dots(canvas, chosen, colour, radius)
    return canvas


def _key(sheet: np.ndarray, y: int, flips: bool, truth: bool) -> None:
    """What the dots mean."""
    x = float(MARGIN)
    entries = [(_MOVED, "moved in this iteration"), (_REST, "at rest")]
    if flips:
        entries = [(_MOVED, "moved on"), (_FLIPPED, "reached a flipping point"), (_REST, "at rest")]
    for colour, text in entries:
        centre = np.array([[x + 7, y - CAPTION / 2]])
        drawing.dots(sheet, centre, INK, 6)
        drawing.dots(sheet, centre, colour, 4.75)
        x = drawing.write(sheet, text, x + 20, y, CAPTION, GREY) + 28
    x = panels.line_key(sheet, "one iteration before", x, y, _BEFORE) + 28
    if truth:
        panels.line_key(sheet, "ground truth", x, y, PAPER)
