"""How far the point classifier can be trusted, and how sure it is, as two panels with a line for each model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eval.diagnostics.probe import DISTANCES, Probe
from eval.pictures.axes import GREY, Axes
from sharpcontour.pictures import drawing
from sharpcontour.pictures.drawing import Colour

COLOURS: tuple[Colour, ...] = ((66, 99, 160), (214, 76, 42), (58, 125, 82), (120, 80, 150))
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 460, 380, 66, 24, 48, 90  # of a panel and its margins, pixels


def draw(probes: Mapping[str, Probe]) -> np.ndarray:
    """Draw both panels, (height, width, 3) uint8.

    Left: of points whose phi falls into each tenth, the share that lies outside; on the diagonal phi is a probability.
    Right: the mean of |phi - 0.5| at each distance from the boundary.

    Args:
        probes: of at most four models, by title.
    """
    sheet = np.full((_HEIGHT, 2 * _WIDTH, 3), 255, np.uint8)
    inner = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    left, right = Axes(sheet, _LEFT, _TOP, *inner), Axes(sheet, _WIDTH + _LEFT, _TOP, *inner)
    left.frame("share outside, by phi", [(v, f"{v:g}") for v in (0, 0.5, 1)], [(v, f"{v:g}") for v in (0, 0.5, 1)])
    places = np.linspace(0.06, 0.94, len(DISTANCES))
    ticks = [(x, f"{d:g}") for x, d in zip(places.tolist(), DISTANCES, strict=True)]
    right.frame("|phi - 0.5|, by px from the boundary", ticks, [(0, "0"), (0.5, "0.25"), (1, "0.5")])
    drawing.stroke(sheet, [left.place(np.array([[0, 0], [1, 1]]))], GREY, 1, 0.6, closed=False)
    for k, (title, found) in enumerate(probes.items()):
        rows = found.calibration()
        left.line(np.array([[row["phi"], row["outside"]] for row in rows]), COLOURS[k])
        sharp = found.sharpness()
        known = [(x, 2 * sharp[name]) for x, name in ticks if name in sharp]
        right.line(np.array(known), COLOURS[k])
        x, y = _LEFT + (k % 2) * _WIDTH, _HEIGHT - 34 + 20 * (k // 2)
        drawing.write(sheet, title, x, y, 8, COLOURS[k], bold=True)
    return sheet
