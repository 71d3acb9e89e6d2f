"""How far the point classifier can be trusted, and how sure it is, as two panels with a line for each model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eval.diagnostics.probe import DISTANCES, Probe
from sharpcontour.pictures import drawing
from sharpcontour.pictures.drawing import Colour

COLOURS: tuple[Colour, ...] = ((66, 99, 160), (214, 76, 42), (58, 125, 82), (120, 80, 150))
_GREY: Colour = (130, 136, 143)
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 460, 380, 66, 24, 48, 90  # of a panel and its margins, pixels


def draw(probes: Mapping[str, Probe]) -> np.ndarray:
    """Draw both panels, (height, width, 3) uint8.

    Left: of points whose phi falls into each tenth, the share that lies outside; on the diagonal phi is a probability.
    Right: the mean of |phi - 0.5| at each distance from the boundary.

    Args:
        probes: of at most four models, by title.
    """
    sheet = np.full((_HEIGHT, 2 * _WIDTH, 3), 255, np.uint8)
    left, right = sheet[:, :_WIDTH], sheet[:, _WIDTH:]
    _frame(left, "share outside, by phi", [(v, f"{v:g}") for v in (0, 0.5, 1)], [(v, f"{v:g}") for v in (0, 0.5, 1)])
    places = np.linspace(0.06, 0.94, len(DISTANCES))
    ticks = [(x, f"{d:g}") for x, d in zip(places.tolist(), DISTANCES, strict=True)]
    _frame(right, "|phi - 0.5|, by px from the boundary", ticks, [(0, "0"), (0.5, "0.25"), (1, "0.5")])
    drawing.stroke(left, [_placed(np.array([[0, 0], [1, 1]]))], _GREY, 1, 0.6, closed=False)
    for k, (title, found) in enumerate(probes.items()):
        rows = found.calibration()
        _line(left, np.array([[row["phi"], row["outside"]] for row in rows]), COLOURS[k])
        sharp = found.sharpness()
        known = [(x, 2 * sharp[name]) for x, name in ticks if name in sharp]
        _line(right, np.array(known), COLOURS[k])
        x, y = _LEFT + (k % 2) * _WIDTH, _HEIGHT - 34 + 20 * (k // 2)
        drawing.write(sheet, title, x, y, 8, COLOURS[k], bold=True)
    return sheet


def _placed(points: np.ndarray) -> np.ndarray:
    """Points (n, 2), 0 to 1 to the right and up, in pixels of a panel."""
    x = _LEFT + points[:, 0] * (_WIDTH - _LEFT - _RIGHT)
    return np.stack([x, _HEIGHT - _BOTTOM - points[:, 1] * (_HEIGHT - _TOP - _BOTTOM)], 1)


def _frame(panel: np.ndarray, title: str, across: list[tuple[float, str]], upwards: list[tuple[float, str]]) -> None:
    drawing.write(panel, title, _LEFT, 26, 9, bold=True)
    drawing.stroke(panel, [_placed(np.array([[0.0, 1], [0, 0], [1, 0]]))], _GREY, 1, closed=False)
    for value, text in across:
        ((x, y),) = _placed(np.array([[value, 0.0]])).tolist()
        drawing.write(panel, text, x - drawing.text_width(text, 8) / 2, y + 20, 8)
    for value, text in upwards:
        ((x, y),) = _placed(np.array([[0.0, value]])).tolist()
        drawing.write(panel, text, x - 8 - drawing.text_width(text, 8), y + 4, 8)


def _line(panel: np.ndarray, points: np.ndarray, colour: Colour) -> None:
    if len(points):
        drawing.stroke(panel, [_placed(points)], colour, 2, closed=False)
        drawing.dots(panel, _placed(points), colour, 4)
