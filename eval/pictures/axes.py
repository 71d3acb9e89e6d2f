"""A pair of axes on a canvas: where values lie, ticks with their labels, lines with dots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sharpcontour.pictures import drawing
from sharpcontour.pictures.drawing import Colour

GREY: Colour = (130, 136, 143)


@dataclass(frozen=True)
class Axes:
    """The area of a plot on a canvas that is drawn on in place.

    Attributes:
        canvas: (height, width, 3) uint8.
        x, y, width, height: of the area between the axes, in pixels of the canvas.
        across, upwards: the values at both ends of the two axes.
        text: height of a capital letter of the labels.
    """

    canvas: np.ndarray
    x: float
    y: float
    width: float
    height: float
    across: tuple[float, float] = (0, 1)
    upwards: tuple[float, float] = (0, 1)
    text: float = 8

    def place(self, points: np.ndarray) -> np.ndarray:
        """Pairs of values (n, 2) in pixels of the canvas."""
        low, high = np.array([self.across, self.upwards], np.float64).T
        share = (np.asarray(points, np.float64) - low) / (high - low)
        return np.stack([self.x + share[:, 0] * self.width, self.y + (1 - share[:, 1]) * self.height], 1)

    def frame(
        self, title: str, across: Sequence[tuple[float, str]], upwards: Sequence[tuple[float, str]], below: str = ""
    ) -> None:
        """Draw both axes with a title above them, the labels of values on them, and what is told below."""
        drawing.write(self.canvas, title, self.x, self.y - 2.75 * self.text, self.text + 1, bold=True)
        end = self.y + self.height
        corner = np.array([[self.x, self.y], [self.x, end], [self.x + self.width, end]])
        drawing.stroke(self.canvas, [corner], GREY, 1, closed=False)
        size, low = self.text, (self.across[0], self.upwards[0])
        for value, text in across:
            ((x, y),) = self.place(np.array([[value, low[1]]])).tolist()
            drawing.write(self.canvas, text, x - drawing.text_width(text, size) / 2, y + 2.5 * size, size)
        for value, text in upwards:
            ((x, y),) = self.place(np.array([[low[0], value]])).tolist()
            drawing.write(self.canvas, text, x - size - drawing.text_width(text, size), y + size / 2, size)
        if below:
            x = self.x + (self.width - drawing.text_width(below, self.text)) / 2
            drawing.write(self.canvas, below, x, end + 4.8 * self.text, self.text)

    def line(self, points: np.ndarray, colour: Colour, width: float = 2, dots: float = 4) -> None:
        """Draw a line through pairs of values (n, 2) with dots of a radius on them, 0 for none; nothing without any."""
        if len(points):
            drawing.stroke(self.canvas, [self.place(points)], colour, width, closed=False)
        if len(points) and dots:
            drawing.dots(self.canvas, self.place(points), colour, dots)
