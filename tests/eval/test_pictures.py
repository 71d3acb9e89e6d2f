from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch

from eval import pictures
from eval.pictures.validation import draw_validation
from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.pictures import drawing, moves, panels
from sharpcontour.pictures.drawing import View

SIZE = (60, 80)


def _square(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


def _cut(ring: np.ndarray, corner: int, by: float) -> np.ndarray:
    """The ring of a square with one corner cut off."""
    before, at, after = ring[corner - 1], ring[corner], ring[(corner + 1) % 4]
    ends = [at + by * (other - at) / np.linalg.norm(other - at) for other in (before, after)]
    return np.concatenate([ring[:corner], ends, ring[corner + 1 :]]).astype(np.float32)


def _detections(objects: list[Rings], size: tuple[int, int] = SIZE) -> Detections:
    boxes = []
    for rings in objects:
        points = np.concatenate([*rings, np.zeros((0 if any(map(len, rings)) else 1, 2), np.float32)])
        boxes.append(np.concatenate([points.min(0), points.max(0)]))
    return Detections(
        torch.tensor(np.array(boxes, np.float32).reshape(-1, 4)),
        torch.linspace(0.9, 0.5, len(objects)),
        torch.arange(len(objects)),
        objects,
        size,
    )


def _image(height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _pair() -> tuple[Detections, Detections]:
    """Two squares, the second with a hole; before refinement each lacks a corner."""
    first, second, hole = _square(5, 5, 35, 35), _square(45, 20, 75, 55), _square(55, 30, 65, 45)
    refined = _detections([[first], [second, hole]])
    return _detections([[_cut(first, 2, 10)], [_cut(second, 2, 6), hole]]), refined


def test_pixels_are_where_the_view_says() -> None:
    image = _image()
    assert np.array_equal(View(0, 0, 1, 80, 60).render(image), image)
    assert np.array_equal(View(10, 20, 1, 30, 25).render(image), image[20:45, 10:40])
    large = View(10, 20, 5, 50, 50).render(image)
    error = large[2::5, 2::5].astype(int) - image[20:30, 10:20]  # their centres coincide
    assert np.abs(error).max() <= 2
    steps = np.repeat(np.repeat(_image(6, 8), 10, 0), 10, 1)
    assert np.array_equal(View(0, 0, 0.1, 8, 6).render(steps), _image(6, 8))
    assert np.array_equal(View(20, 10, 0.1, 3, 4).render(steps), _image(6, 8)[1:5, 2:5])


def test_fills_are_exact_to_a_quarter_of_a_pixel() -> None:
    canvas = np.zeros((20, 20, 3), np.uint8)
    drawing.fill(canvas, [_square(5, 6, 15, 14.5)], (200, 100, 50))
    inside = canvas[7:13, 6:14].reshape(-1, 3)
    assert (inside == (200, 100, 50)).all()
    outside = canvas.astype(int).copy()
    outside[5:16, 4:16] = 0
    assert not outside.any()
    assert canvas[5, 10, 0] == 0 and canvas[6, 10, 0] == 200  # an edge on the border of two pixels
    assert 50 <= canvas[14, 10, 0] <= 150  # an edge in the middle of a pixel
    before = canvas.copy()
    drawing.fill(canvas, [_square(5, 5, 9, 9)], (255, 255, 255), 0.0)
    drawing.fill(canvas, [_square(-50, -50, -40, -40)], (255, 255, 255))
    drawing.fill(canvas, [np.full((4, 2), np.nan), np.zeros((0, 2))], (255, 255, 255))
    drawing.dots(canvas, np.zeros((0, 2)), (255, 255, 255), 3)
    assert np.array_equal(canvas, before)


def test_text_is_as_wide_as_told() -> None:
    canvas = np.zeros((40, 300, 3), np.uint8)
    end = drawing.write(canvas, "SharpContour 0.98", 20, 25, 14, (255, 255, 255))
    columns = np.flatnonzero(canvas.any((0, 2)))
    assert 18 <= columns[0] <= 23 and end - 8 <= columns[-1] <= end + 3
    rows = np.flatnonzero(canvas.any((1, 2)))
    assert 9 <= rows[0] <= 13 and 24 <= rows[-1] <= 31
    drawing.write(canvas, "beyond the border", -30, 3, 14)
    drawing.write(canvas, "beyond the border", 290, 60, 14)


def test_comparison_has_the_promised_form() -> None:
    image, (coarse, refined) = _image(), _pair()
    rings = [ring.copy() for found in (coarse, refined) for rings in found.rings for ring in rings]
    before = image.copy()
    truth = [refined.rings[0]]
    picture = pictures.compare(image, coarse, refined, ["square"], truth=truth)
    assert picture.dtype == np.uint8 and picture.ndim == 3
    assert picture.shape[1] == 2 * (panels.PANEL + panels.MARGIN) + panels.GAP
    assert np.array_equal(image, before)
    after = [ring for found in (coarse, refined) for rings in found.rings for ring in rings]
    assert all(np.array_equal(a, b) for a, b in zip(rings, after, strict=True))
    bare = pictures.compare(image, refined, refined)  # nothing moved: no close-ups
    assert bare.shape[0] < picture.shape[0] and bare.shape[1] == picture.shape[1]
    narrow = pictures.compare(image, coarse, refined, closeups=1, width=200)
    assert narrow.shape[1] == 2 * (200 + panels.MARGIN) + panels.GAP


def test_holes_stay_empty() -> None:
    image = np.full((*SIZE, 3), 90, np.uint8)
    refined = _detections([[_square(10, 10, 50, 50), _square(20, 20, 40, 40), _square(27, 27, 33, 33)]])
    panel = panels.draw_objects(image, View(0, 0, 4, 320, 240), refined.rings)
    assert (panel[4 * 23, 4 * 30] == 90).all() and (panel[4 * 55, 4 * 60] == 90).all()
    filled = panel[4 * 15, 4 * 30]
    assert (filled != 90).any() and np.array_equal(panel[4 * 30, 4 * 30], filled)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 300), (300, 5), (8, 8), (700, 900)])
def test_any_size_of_image(size: tuple[int, int]) -> None:
    image, (coarse, refined) = _image(*size), _pair()
    for found in (coarse, refined):
        found.rings.append([])
        found.boxes = torch.cat([found.boxes, torch.tensor([[0.0, 0, 80, 60]])])
        found.labels, found.scores = torch.arange(3), torch.tensor([0.9, 0.8, 0.1])
    picture = pictures.compare(image, coarse, refined)  # detections of another size are scaled to the image
    assert picture.dtype == np.uint8
    assert pictures.draw_detections(image, refined).shape[1] <= panels.PANEL
    steps = [found.scaled_to(size).rings[1] for found in (coarse, coarse, refined)]
    assert pictures.evolution(image, steps).dtype == np.uint8


def test_nothing_found_and_useless_rings() -> None:
    image = _image()
    none = _detections([])
    assert pictures.compare(image, none, none, truth=[]).shape[0] > 400
    assert pictures.draw_detections(image, none).shape == (480, 640, 3)
    useless: list[Rings] = [[], [np.zeros((0, 2), np.float32)], [np.ones((2, 2), np.float32)], [_square(3, 3, 3, 3)]]
    useless.append([np.full((4, 2), 1e9, np.float32)])
    found = _detections(useless)
    assert pictures.compare(image, found, found).dtype == np.uint8
    broken = _detections([[np.full((4, 2), np.nan, np.float32)]])
    broken.boxes = torch.zeros(1, 4)
    assert pictures.compare(image, broken, broken).dtype == np.uint8
    for rings in useless:
        assert pictures.evolution(image, [rings, rings]).dtype == np.uint8


def test_only_the_same_instances_can_be_compared() -> None:
    with pytest.raises(InputError, match="same instances"):
        pictures.compare(_image(), _detections([]), _pair()[1])


def test_places_are_where_contours_moved_most() -> None:
    coarse, refined = _pair()
    places = pictures.largest_moves(coarse, refined, 3)
    assert [place.instance for place in places] == [0, 1]
    for place, (x, y), move in zip(places, ((35, 35), (75, 55)), (10 / 2**0.5, 6 / 2**0.5), strict=True):
        assert place.x <= x <= place.x + place.side and place.y <= y <= place.y + place.side
        assert place.x >= 0 and place.y >= 0
        assert place.x + place.side <= SIZE[1] + 1e-4 and place.y + place.side <= SIZE[0] + 1e-4
        assert place.move == pytest.approx(move, abs=1e-4)
    assert len(pictures.largest_moves(coarse, refined, 1)) == 1
    assert pictures.largest_moves(refined, refined, 3) == []


def test_objects_that_nothing_moved_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    coarse, refined = _pair()
    refined = replace(refined, shapes=[coarse.rings[0], refined.rings[1]])
    looked: list[int] = []
    monkeypatch.setattr(moves, "moves", lambda before, after, size, k: looked.append(k) or [])
    assert pictures.largest_moves(coarse, refined, 3) == [] and looked == [1]


def test_parts_that_nothing_moved_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    distances = moves._distances
    monkeypatch.setattr(
        moves, "_distances", lambda points, rings: measured.append(len(points)) or distances(points, rings)
    )
    square = np.array([[0, 0], [30, 0], [30, 30], [0, 30]], np.float32)
    specks = [square / 30 + k for k in range(40, 90)]
    places = moves.moves([square, *specks], [square + 2, *specks], (100, 100))
    assert measured == [4] and places[0].move > 2
    assert moves.moves([square, *specks], [square.copy(), *specks], (100, 100)) == [] and measured == [4]


def test_labels_hide_no_contours_where_there_is_room() -> None:
    _, refined = _pair()
    view = panels.whole(_image(), 640)
    labels = panels.place_labels(view, refined, ["square", "frame"], refined.rings)
    assert [label.text for label in labels] == ["square 0.90", "frame 0.50"]
    lines = np.zeros((view.height, view.width), np.uint8)
    for rings in refined.rings:
        cv2.polylines(lines, [np.round(view.place(ring)).astype(np.int32) for ring in rings], True, 1)
    for label in labels:
        assert not lines[int(label.y) : int(label.y + label.height), int(label.x) : int(label.x + label.width)].any()
    assert not labels[0].overlaps((labels[1].x, labels[1].y, labels[1].x + 1, labels[1].y + 1))


def test_evolution_tells_vertices_apart() -> None:
    ring = _square(10, 10, 50, 50)
    lower = ring + np.float32(3)
    steps = [[ring], [lower], [lower]]
    image = np.zeros((*SIZE, 3), np.uint8)
    moved, flipped = (255, 138, 48), (60, 190, 90)

    def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
        return int((picture == colour).all(-1).sum())

    plain = pictures.evolution(image, steps)
    marked = pictures.evolution(image, steps, [[np.ones(4, bool)], [np.zeros(4, bool)]], truth=[ring])
    assert count(plain, moved) > count(marked, moved) > 0  # in the key
    assert count(plain, flipped) == 0 < count(marked, flipped)
    resampled = [[ring], [np.repeat(ring, 2, 0)], [ring, ring]]
    assert pictures.evolution(image, resampled).shape[1] == plain.shape[1]
    assert pictures.evolution(image, steps[:1]).dtype == np.uint8
    assert not image.any()


def test_confident_keeps_all_that_belongs_together() -> None:
    coarse, refined = _pair()
    refined.coarse, refined.steps = coarse, [coarse.rings, refined.rings]
    kept = pictures.confident(refined, 0.6)
    assert len(kept) == 1 and kept.coarse is not None and len(kept.coarse) == 1 and kept.steps is not None
    assert kept.rings == [refined.rings[0]] and kept.coarse.rings == [coarse.rings[0]]
    assert kept.steps == [[coarse.rings[0]], [refined.rings[0]]]
    assert len(pictures.confident(refined, 0.95)) == 0 and len(pictures.confident(refined, 0.0)) == 2


def test_pictures_of_an_earlier_evaluation_are_removed(tmp_path: Path) -> None:
    class NoImages(list[Any]):
        categories: ClassVar[list[Any]] = []

    for name in ("improved_1.png", "any_4.png", "evolution.png", "mine.png"):
        (tmp_path / name).write_text("of before")
    draw_validation(torch.nn.Identity(), NoImages(), 8, "", tmp_path)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_examples_are_those_that_improved_most() -> None:
    coarse, refined = _pair()
    none = _detections([])
    before, after = [coarse, none, refined, coarse], [refined, none, coarse, coarse]
    truth = [refined.rings, refined.rings, refined.rings, refined.rings]
    assert pictures.select_examples(before, after, 3, truth) == [0, 3, 2]
    assert sorted(pictures.select_examples(before, after, 2)) == [0, 2]
    assert pictures.select_examples(before, after, 3, [[], [], [], []]) == [0, 2, 3]  # nothing to gain anywhere
    assert pictures.select_examples([], [], 3) == []


def test_saving_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, image = tmp_path / "new" / "a.png", _image()
    pictures.save(path, image)
    assert np.array_equal(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), image)
    held = path.read_bytes()
    pictures.save(tmp_path / "a.jpg", image)
    assert (tmp_path / "a.jpg").read_bytes()[:2] == b"\xff\xd8"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"a\.png: the disk is full"):
        pictures.save(path, 255 - image)
    assert path.read_bytes() == held and list(path.parent.iterdir()) == [path]


def test_text_with_what_is_no_character_is_drawn() -> None:
    canvas = np.zeros((40, 200, 3), np.uint8)
    assert drawing.write(canvas, "caf\udce9", 5, 30, 12) > 5  # OpenCV alone would crash
    assert canvas.any() and drawing.text_width("\ud800", 12) > 0
