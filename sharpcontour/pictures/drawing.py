"""Smooth drawing on RGB images with OpenCV: enlarged views, contours, dots, rounded boxes, text.

Every shape is drawn as a coverage mask at ``FINE`` times the resolution, with sub-pixel coordinates, shrunk by area and
blended: lines have any width, edges are smooth, and a hole stays empty. A canvas is (height, width, 3) uint8 RGB and is
drawn on in place; lengths and places are in its pixels, x to the right and y down, pixel (row i, column j) covering
[j, j+1) x [i, i+1). Nothing is drawn of points outside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sharpcontour.io.files import write_whole

JPEG_QUALITY = 88  # of 100
FINE = 4  # sub-pixels of a coverage mask along each axis
_SHIFT = 4  # bits behind the point of OpenCV's coordinates
_FAR = 1 << 14  # canvas pixels; what lies further away is pulled to there, before OpenCV's integers overflow
_CAP_HEIGHT = 21.0  # px of a capital letter in OpenCV's fonts at scale 1

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class View:
    """A rectangle of an image, shown at some magnification.

    Attributes:
        x, y: its top left corner, continuous pixels of the image.
        scale: canvas pixels per pixel of the image.
        width, height: of the canvas.
    """

    x: float
    y: float
    scale: float
    width: int
    height: int

    def place(self, points: np.ndarray) -> np.ndarray:
        """Map points (n, 2) of the image to the canvas."""
        return (np.asarray(points, np.float64) - (self.x, self.y)) * self.scale

    def render(self, image: np.ndarray) -> np.ndarray:
        """Make a new canvas with this part of the image."""
        height, width = image.shape[:2]
        across, down = self.scale, self.scale
        if self.scale < 1:  # warpAffine would skip pixels
            size = max(round(width * self.scale), 1), max(round(height * self.scale), 1)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            across, down = across * width / size[0], down * height / size[1]
        # Pixel centres: canvas + .5 = scale * (image + .5 - corner).
        matrix = np.array(
            [
                [across, 0, across / 2 - self.x * self.scale - 0.5],
                [0, down, down / 2 - self.y * self.scale - 0.5],
            ]
        )
        return cv2.warpAffine(
            image, matrix, (self.width, self.height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )


def fill(canvas: np.ndarray, rings: Sequence[np.ndarray], colour: Colour, opacity: float = 1.0) -> None:
    """Fill the rings together, by the even-odd rule."""
    _paint(canvas, rings, 0, colour, opacity, lambda mask, shapes: cv2.fillPoly(mask, shapes, 255, shift=_SHIFT))


def stroke(
    canvas: np.ndarray,
    lines: Sequence[np.ndarray],
    colour: Colour,
    width: float,
    opacity: float = 1.0,
    closed: bool = True,
) -> None:
    """Draw rings, or open lines, ``width`` canvas pixels wide."""
    thick = max(round(width * FINE), 1)
    _paint(
        canvas,
        lines,
        width,
        colour,
        opacity,
        lambda mask, shapes: cv2.polylines(mask, shapes, closed, 255, thick, cv2.LINE_AA, _SHIFT),
    )


def dots(canvas: np.ndarray, points: np.ndarray, colour: Colour, radius: float, opacity: float = 1.0) -> None:
    """Draw a disc on each of the points (n, 2)."""
    fine = round(radius * FINE * (1 << _SHIFT))

    def discs(mask: np.ndarray, shapes: Sequence[np.ndarray]) -> None:
        for x, y in shapes[0].tolist():
            cv2.circle(mask, (x, y), fine, 255, -1, cv2.LINE_AA, _SHIFT)

    _paint(canvas, [points], radius + 1, colour, opacity, discs)


def _paint(
    canvas: np.ndarray,
    shapes: Sequence[np.ndarray],
    reach: float,
    colour: Colour,
    opacity: float,
    draw: Callable[[np.ndarray, Sequence[np.ndarray]], object],
) -> None:
    """Blend in what ``draw`` puts on a fine mask of that part of the canvas which the shapes, and ``reach``, touch."""
    usable = [np.clip(shape, -_FAR, _FAR) for shape in shapes if len(shape) and np.isfinite(shape).all()]
    if not usable:
        return
    points = np.concatenate(usable)
    x0, y0 = np.floor(points.min(0) - reach).astype(int).clip(0)
    x1, y1 = np.minimum(np.ceil(points.max(0) + reach).astype(int), canvas.shape[1::-1])
    if x0 >= x1 or y0 >= y1:
        return
    mask = np.zeros(((y1 - y0) * FINE, (x1 - x0) * FINE), np.uint8)
    # OpenCV's integer coordinates are pixel centres.
    draw(mask, [np.round(((s - (x0, y0)) * FINE - 0.5) * (1 << _SHIFT)).astype(np.int32) for s in usable])
    _blend(canvas[y0:y1, x0:x1], mask, colour, opacity)


def _blend(region: np.ndarray, mask: np.ndarray, colour: Colour, opacity: float) -> None:
    cover = cv2.resize(mask, region.shape[1::-1], interpolation=cv2.INTER_AREA).astype(np.float32)[..., None]
    cover *= opacity / 255
    region[:] = np.round(region + cover * (np.array(colour, np.float32) - region))


def rounded(x0: float, y0: float, x1: float, y1: float, radius: float) -> np.ndarray:
    """A rectangle with round corners, as a ring."""
    radius = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
    turn = np.linspace(0, np.pi / 2, 9)
    corners = [(x1, y0, -np.pi / 2), (x1, y1, 0), (x0, y1, np.pi / 2), (x0, y0, np.pi)]
    parts = []
    for x, y, begin in corners:
        centre = np.array([x - radius if x == x1 else x + radius, y - radius if y == y1 else y + radius])
        parts.append(centre + radius * np.stack([np.cos(begin + turn), np.sin(begin + turn)], 1))
    return np.concatenate(parts)


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Width of a line of text whose capitals are ``size`` pixels high."""
    font, scale, thick = _font(size, bold)
    return cv2.getTextSize(_drawable(text), font, scale, thick)[0][0] / FINE


def write(
    canvas: np.ndarray, text: str, x: float, y: float, size: float, colour: Colour = (27, 31, 36), bold: bool = False
) -> float:
    """Write a line from ``x`` on, with the baseline at ``y``; returns where it ends.

    OpenCV's font has Latin letters only; others become question marks.
    """
    font, scale, thick = _font(size, bold)
    width = text_width(text, size, bold)
    x0, y0 = int(np.floor(x)) - 2, int(np.floor(y - 1.5 * size))
    mask = np.zeros((int(np.ceil(2.2 * size)) * FINE, (int(np.ceil(width)) + 6) * FINE), np.uint8)
    cv2.putText(
        mask, _drawable(text), (round((x - x0) * FINE), round((y - y0) * FINE)), font, scale, 255, thick, cv2.LINE_AA
    )
    height, length = mask.shape[0] // FINE, mask.shape[1] // FINE
    left, top = max(-x0, 0), max(-y0, 0)
    right, bottom = min(length, canvas.shape[1] - x0), min(height, canvas.shape[0] - y0)
    if left < right and top < bottom:
        inner = mask[top * FINE : bottom * FINE, left * FINE : right * FINE]
        _blend(canvas[y0 + top : y0 + bottom, x0 + left : x0 + right], inner, colour, 1.0)
    return x + width


def _drawable(text: str) -> str:
    """The text without what is no character, such as odd bytes of a name that is not UTF-8, which crash OpenCV."""
    return text.encode("utf-8", "replace").decode()


def _font(size: float, bold: bool) -> tuple[int, float, int]:
    """OpenCV font, scale and line thickness in sub-pixels."""
    # OpenCV 4 draws its fonts with lines, which must grow with the letters; OpenCV 5 has real ones.
    thick = max(round(size * FINE * (0.17 if bold else 0.11)), 1)
    return cv2.FONT_HERSHEY_DUPLEX if bold else cv2.FONT_HERSHEY_SIMPLEX, size * FINE / _CAP_HEIGHT, thick


def save(path: str | Path, image: np.ndarray) -> None:
    """Write a picture so that the file holds either all of it or what it held before. Folders are made.

    It is a JPEG where the name ends in ".jpg" or ".jpeg", and a PNG otherwise.

    Raises:
        InputError: if it cannot be written (no permission, no space).
    """
    ending = ".jpg" if Path(path).suffix.lower() in (".jpg", ".jpeg") else ".png"
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if ending == ".jpg" else []  # OpenCV 5 complains about others
    _, data = cv2.imencode(ending, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    write_whole(data.tobytes(), path)
