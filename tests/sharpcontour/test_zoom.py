"""A closer look at large objects: what it changes, what it leaves, and how tiles vote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import sharpcontour
from sharpcontour.anymask import zoom
from sharpcontour.anymask.foreign_masks import GivenObjects, given_traced
from sharpcontour.anymask.zoom import Tiles, near_outline, refine_zoomed
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.contours.tracing import trace_mask
from tests.models.helpers import disc
from tests.sharpcontour.weights import write_weights

DOCS = Path(__file__).resolve().parents[2] / "docs"


def ring_shaped(size: int = 900) -> np.ndarray:
    """A ring of two circles: an outline with a hole, not in the middle of the image."""
    return disc(420, 470, 380, size, size) & ~disc(420, 470, 150, size, size)


def test_tiles_that_change_nothing_leave_the_object() -> None:
    rings = trace_mask(ring_shaped())
    tiles = Tiles(rings, (900, 900), 256)
    assert tiles.joined([None] * len(tiles.cells), rings) is rings
    assert tiles.joined([piece.split() for piece in tiles.pieces()], rings) is rings


@pytest.mark.parametrize("grow", [-9, 3, 9])
def test_what_all_tiles_change_alike_is_changed_without_seams(grow: int) -> None:
    mask = ring_shaped()
    mask[:200] = False  # a straight edge along a row
    rings = trace_mask(mask)
    tiles = Tiles(rings, mask.shape, 256)

    def changed(piece: np.ndarray) -> np.ndarray:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(grow) + 1,) * 2)
        change = cv2.dilate if grow > 0 else cv2.erode
        return change(piece.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0

    # Pieces change at the tiles' borders too, where they are cut off; there their votes count nothing.
    refined = [trace_mask(changed(rings_to_masks([piece.split()], 900, 900)[0])) for piece in tiles.pieces()]
    assert np.array_equal(rings_to_masks([tiles.joined(refined, rings)], 900, 900)[0], changed(mask))


def test_tiles_lie_along_the_outline_and_reach_beyond_it() -> None:
    mask = ring_shaped()
    tiles = Tiles(trace_mask(mask), mask.shape, 128)
    assert len(tiles.cells) == len(set(tiles.cells)) and tiles.mask.shape[0] > 760
    covered = np.zeros(mask.shape, bool)
    for piece in tiles.pieces():
        low, high = piece.points.min(0).astype(int), piece.points.max(0).astype(int)
        assert (high - low <= 128).all() and (low >= 0).all() and (high <= 900).all()
        covered[low[1] : high[1], low[0] : high[0]] = True
    assert covered[near_outline(mask, 1) & mask].all()
    assert not covered[470 - 20 : 470 + 20, 420 - 20 : 420 + 20].any()  # in the hole there is nothing to look at


def looks(monkeypatch: pytest.MonkeyPatch, image: np.ndarray, masks: np.ndarray) -> list[int]:
    """How many objects each look refines; none of them changes."""
    counts: list[int] = []

    def look(model: Any, image: np.ndarray, given: GivenObjects) -> list[Any]:
        counts.append(len(given))
        return list(given.objects)

    monkeypatch.setattr(zoom, "refine_in_windows", look)
    given = given_traced([zoom.trace_window(mask) for mask in masks])
    found = refine_zoomed(None, image, given)  # type: ignore[arg-type]
    assert all(a is b for a, b in zip(found, given.objects, strict=True))
    return counts


def test_larger_objects_are_looked_at_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((1600, 1600, 3), np.uint8)
    empty = np.zeros((1600, 1600), bool)
    small, middle, large = (disc(800, 800, radius, 1600, 1600) for radius in (120, 200, 700))
    assert looks(monkeypatch, image, np.stack([empty, small])) == [2]
    first, second = looks(monkeypatch, image, np.stack([small, middle]))
    assert first == 2 and 4 <= second <= 20
    first, wide, narrow, narrowest = looks(monkeypatch, image, np.stack([middle, large]))
    assert first == 2 and wide < narrow < narrowest
    assert looks(monkeypatch, image, np.zeros((0, 1600, 1600), bool)) == [0]


def test_an_object_beside_the_image(tmp_path: Path) -> None:
    refiner = sharpcontour.load_refiner(write_weights(tmp_path / "weights.pt"), zoom=True)
    outside = np.array([[700.0, 50], [1200, 50], [1200, 600], [700, 600]], np.float32)
    across = outside - (900, 0)
    found = refiner.refine(np.zeros((500, 600, 3), np.uint8), [[outside], [across]])
    assert len(found) == 2 and not found.masks()[0].any()


def test_the_photograph_in_large() -> None:
    photo = cv2.imread(str(DOCS / "coffee.jpg"))[..., ::-1]
    mask = cv2.imread(str(DOCS / "cup.png"), cv2.IMREAD_GRAYSCALE)
    size = (2 * photo.shape[1], 2 * photo.shape[0])
    photo, mask = cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC), cv2.resize(mask, size) > 127
    refiner = sharpcontour.load_refiner()
    once = refiner.refine(photo, mask[None])
    refiner.zoom = True
    twice = refiner.refine(photo, mask[None])
    (before,), (after,) = once.masks(), twice.masks()
    assert 0.97 < (before & after).sum() / (before | after).sum() < 1
    changed = before != after
    assert near_outline(before, 40)[changed].all()
    small = cv2.resize(mask.astype(np.uint8), (300, 200)) > 0
    image = cv2.resize(photo, (300, 200))
    (kept,) = refiner.refine(image, small[None]).rings
    refiner.zoom = False
    (expected,) = refiner.refine(image, small[None]).rings
    assert all(map(np.array_equal, kept, expected)) and len(kept) == len(expected)
