"""Plots of the ablations: a panel for each curve, the paper's and ours, each on its own axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.pictures.axes import GREY
from sharpcontour.pictures import drawing
from sharpcontour.pictures.drawing import Colour

OURS: Colour = (214, 76, 42)
PAPER: Colour = (66, 99, 160)
_WIDTH, _HEIGHT = 460, 330  # of a panel, pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 66, 62, 48  # margins in it


@dataclass
class Curve:
    """The values of one panel: ours and the paper's.

    Attributes:
        title: above it.
        labels: of the places on the horizontal axis.
        ours: values there, None where there is none.
        paper: the paper's values at the same places, None where it has none.
    """

    title: str
    labels: Sequence[str]
    ours: Sequence[float | None]
    paper: Sequence[float | None]


def plot(curves: Sequence[Curve], metric: str) -> np.ndarray:
    """Draw all panels in a row, (height, width, 3) uint8; our axis on the left, the paper's on the right."""
    sheet = np.full((_HEIGHT, _WIDTH * len(curves), 3), 255, np.uint8)
    for k, curve in enumerate(curves):
        panel = sheet[:, k * _WIDTH : (k + 1) * _WIDTH]
        drawing.write(panel, curve.title, _LEFT, 24, 10, bold=True)
        end = drawing.write(panel, f"{metric}, ours", _LEFT, 46, 8, OURS)
        if any(value is not None for value in curve.paper):
            drawing.write(panel, "paper (COCO)", end + 18, 46, 8, PAPER)
        _frame(panel, curve.labels)
        _line(panel, curve.paper, PAPER, left=False)
        _line(panel, curve.ours, OURS, left=True)
    return sheet


def _frame(panel: np.ndarray, labels: Sequence[str]) -> None:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    axes = np.array([[_LEFT, _TOP], [_LEFT, bottom], [right, bottom], [right, _TOP]], np.float64)
    drawing.stroke(panel, [axes], GREY, 1, closed=False)
    for x, label in zip(_places(len(labels)), labels, strict=True):
        drawing.write(panel, label, x - drawing.text_width(label, 8) / 2, bottom + 22, 8)


def _line(panel: np.ndarray, values: Sequence[float | None], colour: Colour, left: bool) -> None:
    known = [(x, value) for x, value in zip(_places(len(values)), values, strict=True) if value is not None]
    if not known:
        return
    low, high = min(value for _, value in known), max(value for _, value in known)
    if high - low < 0.5:  # percent: a difference of nothing must not fill the panel
        low, high = (low + high) / 2 - 0.25, (low + high) / 2 + 0.25
    margin = 0.12 * (high - low)
    low, high = low - margin, high + margin
    bottom = _HEIGHT - _BOTTOM
    points = np.array([[x, bottom - (value - low) / (high - low) * (bottom - _TOP)] for x, value in known])
    drawing.stroke(panel, [points], colour, 2, closed=False)
    drawing.dots(panel, points, colour, 4)
    for value in (low + margin, high - margin):
        y = bottom - (value - low) / (high - low) * (bottom - _TOP)
        text = f"{value:.1f}"
        x = _LEFT - 8 - drawing.text_width(text, 8) if left else _WIDTH - _RIGHT + 8
        drawing.write(panel, text, x, y + 4, 8, colour)


def _places(count: int) -> np.ndarray:
    inner = _WIDTH - _LEFT - _RIGHT
    return _LEFT + inner * (np.arange(count) + 0.5) / max(count, 1)
