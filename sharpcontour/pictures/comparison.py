"""Detections before and after refinement, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.pictures import drawing, panels
from sharpcontour.pictures.moves import Place, check_pair, largest_moves
from sharpcontour.pictures.panels import CAPTION, GAP, GREY, MARGIN, PANEL, PAPER, TITLE

_BETWEEN = 4  # the two squares of a close-up


def compare(
    image: np.ndarray,
    coarse: Detections,
    refined: Detections,
    class_names: Sequence[str] = (),
    *,
    titles: tuple[str, str] = ("before", "after"),
    truth: Sequence[Rings] | None = None,
    closeups: int = 3,
    width: int = PANEL,
    scores: bool = True,
) -> np.ndarray:
    """Coarse and refined contours side by side, and below them close-ups of where they moved most.

    Args:
        image: what was detected on.
        coarse: before refinement.
        refined: the same instances in the same order after it.
        class_names: of class index 0, 1, ...; without them the index is shown.
        titles: above the two panels.
        truth: rings of the ground-truth objects in pixels of the image, drawn in white.
        closeups: how many at most; which places are shown follows from the contours alone, see
            :func:`sharpcontour.pictures.moves.largest_moves`.
        width: of one panel in pixels.
        scores: whether the labels tell the scores.

    Returns:
        The picture, wide enough for two panels and the margins.

    Raises:
        InputError: if the two are not the same instances.
    """
    check_pair(coarse, refined)
    coarse, refined = panels.fitted(coarse, image), panels.fitted(refined, image)
    places = largest_moves(coarse, refined, closeups)
    view = panels.whole(image, width)
    side = _side(width, len(places))
    top = MARGIN + round(1.9 * TITLE)
    below = top + view.height + GAP
    height = below + (side + round(2 * CAPTION) if places else -GAP) + MARGIN
    sheet = np.full((height, 2 * (MARGIN + width) + GAP, 3), PAPER, np.uint8)
    labels = panels.place_labels(view, refined, class_names, [*coarse.rings, *refined.rings], places, scores)
    for column, (found, title) in enumerate(zip((coarse, refined), titles, strict=True)):
        panel = panels.draw_objects(image, view, found.rings, truth)
        for number, place in enumerate(places, 1):
            panels.mark(panel, view, place, number)
        panels.draw_labels(panel, labels)
        x = MARGIN + column * (width + GAP) + (width - view.width) // 2
        drawing.write(sheet, title, x, MARGIN + TITLE, TITLE, bold=True)
        panels.paste(sheet, panel, x, top)
    if truth is not None:
        text = "ground truth"
        x = sheet.shape[1] - MARGIN - round(drawing.text_width(text, CAPTION)) - 38
        panels.line_key(sheet, text, x, MARGIN + TITLE, PAPER)
    for number, place in enumerate(places, 1):
        x = MARGIN + (number - 1) * (2 * side + _BETWEEN + GAP)
        _closeup(sheet, image, (coarse, refined), truth, place, number, (x, below), side)
    return sheet


def draw_detections(
    image: np.ndarray, detections: Detections, class_names: Sequence[str] = (), width: int = PANEL
) -> np.ndarray:
    """The image with its instances, ``width`` pixels wide (less where it would become very tall)."""
    detections = panels.fitted(detections, image)
    view = panels.whole(image, width)
    panel = panels.draw_objects(image, view, detections.rings)
    panels.draw_labels(panel, panels.place_labels(view, detections, class_names, detections.rings))
    return panel


def _side(width: int, closeups: int) -> int:
    """Side of the square close-ups in pixels, such that the pairs fill a row; one alone is as large as one of two."""
    row = 2 * width + GAP
    return ((row + GAP) // max(closeups, 2) - GAP - _BETWEEN) // 2


def _closeup(
    sheet: np.ndarray,
    image: np.ndarray,
    pair: tuple[Detections, Detections],
    truth: Sequence[Rings] | None,
    place: Place,
    number: int,
    corner: tuple[int, int],
    side: int,
) -> None:
    """Before and after at one place, with captions."""
    view = panels.square(place, side)
    x, y = corner
    for found, caption in zip(pair, ("before", "after"), strict=True):
        panels.paste(sheet, panels.draw_objects(image, view, found.rings, truth, panels.OUTLINE_NEAR), x, y)
        drawing.write(sheet, caption, x, y + side + 1.8 * CAPTION, CAPTION, GREY)
        x += side + _BETWEEN
    panels.badge(sheet, number, corner[0] + 17, y + 17)
