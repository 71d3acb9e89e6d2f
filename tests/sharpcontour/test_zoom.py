"""A closer look at large objects: what it changes, what it leaves, and how tiles vote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import hubconf
import sharpcontour
from sharpcontour.anymask import zoom
from sharpcontour.anymask.foreign_masks import read_masks
from sharpcontour.anymask.given_objects import GivenObjects, given_traced
from sharpcontour.anymask.zoom import Tiles, refine_zoomed
from sharpcontour.app import page
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.contours.tracing import trace_mask
from sharpcontour.masks.distance import signed_distance
from tests.commands import run_script
from tests.models.helpers import disc
from tests.sharpcontour.weights import write_weights

DOCS = Path(__file__).resolve().parents[2] / "docs"
SIZE = (800, 900)


def odd_shape() -> np.ndarray:
    """A disc with a hole, a straight edge, a second part, and cut off by the image on the left and at the bottom."""
    mask = disc(320, 470, 380, *SIZE) & ~disc(420, 470, 150, *SIZE)
    mask[:200] = False
    mask[40:120, 200:640] = True
    return mask


def pixels_of(objects: list[Any]) -> np.ndarray:
    return rings_to_masks(objects, *SIZE)


def change(by: int) -> Callable[[np.ndarray], np.ndarray]:
    """Masks larger or smaller by so many pixels."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(by) + 1,) * 2)
    morph = cv2.dilate if by > 0 else cv2.erode
    # The border of the image is not one of the object.
    return lambda mask: morph(mask.astype(np.uint8), kernel) > 0


def test_tiles_that_change_nothing_leave_the_object() -> None:
    rings = trace_mask(odd_shape())
    tiles = Tiles(rings, SIZE, 256, 12)
    assert tiles.joined([piece.split() for piece in tiles.pieces()]) is rings


@pytest.mark.parametrize("by", [-9, 3, 9])
def test_what_all_tiles_change_alike_is_changed_without_seams(by: int) -> None:
    mask = odd_shape()
    tiles = Tiles(trace_mask(mask), SIZE, 256, 12)
    # Pieces change at the tiles' borders too, where they are cut off; there their votes count nothing.
    refined = [trace_mask(change(by)(pixels_of([piece.split()])[0])) for piece in tiles.pieces()]
    assert np.array_equal(pixels_of([tiles.joined(refined)])[0], change(by)(mask))


def test_what_lies_farther_than_a_vertex_comes_stays() -> None:
    mask = odd_shape()
    tiles = Tiles(trace_mask(mask), SIZE, 256, 3)
    refined = [trace_mask(change(9)(pixels_of([piece.split()])[0])) for piece in tiles.pieces()]
    changed = pixels_of([tiles.joined(refined)])[0] != mask
    assert changed.any() and np.abs(signed_distance(mask))[changed].max() <= 3


def test_no_specks_and_no_pinholes_come() -> None:
    mask = odd_shape()
    tiles = Tiles(trace_mask(mask), SIZE, 256, 12)
    spoiled = mask.copy()
    spoiled[206:208, 400:402] = False  # six pixels from the straight edge
    spoiled[192:194, 500:503] = True
    spoiled[196:200, 350:360] = True  # grows out of it
    refined = [trace_mask(spoiled & pixels_of([p.split()])[0] | spoiled & ~mask) for p in tiles.pieces()]
    changed = pixels_of([tiles.joined(refined)])[0] != mask
    assert changed[196:200, 350:360].all() and changed.sum() == 40


def test_an_object_is_not_lost() -> None:
    rings = trace_mask(disc(400, 400, 8, *SIZE))
    tiles = Tiles(rings, SIZE, 256, 12)
    assert tiles.joined([[] for _ in tiles.cells]) is rings


def test_polygons_keep_their_pixels() -> None:
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    polygon = np.round(np.stack([450 + 151 * np.cos(angles), 400 + 151 * np.sin(angles)], 1), 1)  # ties of rounding
    mask = Tiles([polygon], SIZE, 256, 12).mask
    rows, columns = np.nonzero(pixels_of([[polygon]])[0])
    assert mask.sum() == len(rows)
    assert np.array_equal(np.argwhere(mask) - np.argwhere(mask)[0], np.stack([rows - rows[0], columns - columns[0]], 1))


def test_an_object_thinner_than_a_pixel_has_no_tiles() -> None:
    line = np.array([[100.2, 300.6], [700.2, 300.6], [700.2, 300.9]])
    tiles = Tiles([line], SIZE, 256, 12)
    assert not tiles.cells and tiles.joined([])[0] is line


def test_tiles_lie_along_the_outline() -> None:
    mask = odd_shape()
    tiles = Tiles(trace_mask(mask), SIZE, 128, 6)
    covered = np.zeros(SIZE, bool)
    for piece in tiles.pieces():
        low, high = piece.points.min(0).astype(int), piece.points.max(0).astype(int)
        assert (high - low <= 128).all() and (low >= 0).all() and (high <= SIZE[::-1]).all()
        covered[low[1] : high[1], low[0] : high[0]] = True
    assert covered[mask & (signed_distance(mask) > -1)].all()
    assert not covered[450:490, 400:440].any()  # in the hole there is nothing to look at


def looks(monkeypatch: pytest.MonkeyPatch, masks: Any, size: tuple[int, int], by: int = 0) -> tuple[list[int], Any]:
    """How many objects each look refines; every look at tiles makes them larger by so many pixels."""
    counts: list[int] = []

    def look(model: Any, image: np.ndarray, given: GivenObjects) -> list[Any]:
        counts.append(len(given))
        if not by or len(counts) == 1:
            return list(given.objects)
        return [trace_mask(change(by)(mask)) for mask in rings_to_masks(given.objects, *size)]

    monkeypatch.setattr(zoom, "refine_in_windows", look)
    given = read_masks(masks, *size)
    model: Any = sharpcontour.load_refiner().model
    found = refine_zoomed(model, np.zeros((*size, 3), np.uint8), given)
    assert by or all(a is b for a, b in zip(found, given.objects, strict=True))
    return counts, found


def test_larger_objects_are_looked_at_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    size = (1600, 1600)
    small, middle, large = (disc(800, 800, radius, *size) for radius in (120, 200, 700))
    assert looks(monkeypatch, np.stack([np.zeros(size, bool), small]), size)[0] == [2]
    first, second = looks(monkeypatch, np.stack([small, middle]), size)[0]
    assert first == 2 and 4 <= second <= 20
    first, _, wide, narrow, narrowest = looks(monkeypatch, np.stack([middle, large]), size)[0]
    assert first == 2 and wide < narrow < narrowest
    assert looks(monkeypatch, np.zeros((0, *size), bool), size)[0] == [0]
    assert looks(monkeypatch, np.ones((1, *size), bool), size)[0] == [1, 0, 0, 0]  # its outline is the image's


def test_what_lies_beside_the_image_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = np.array([[1000.0, 50], [1e30, 50], [1e30, 600], [1000, 600]])
    across = np.array([[-1e6, 100], [500, 100], [500, 500], [-1e6, 500]])
    counts, (one, two) = looks(monkeypatch, [[outside], [across]], SIZE, by=2)
    assert counts[0] == 2 and np.array_equal(one[0], outside)
    expected = pixels_of([[across]])[0]
    for _ in counts[3:]:
        expected = change(2)(expected)
    assert np.array_equal(pixels_of([two])[0], expected)


def test_what_does_not_move_is_the_same_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refiner = sharpcontour.load_refiner(write_weights(tmp_path / "weights.pt"), zoom=True)
    refiner.model.refiner.config.tracing.min_move = 1e9
    sharp = refiner.refine(np.zeros((*SIZE, 3), np.uint8), odd_shape()[None])
    assert sharp.coarse is not None and sharp.rings[0] is sharp.coarse.rings[0]


def test_details_finer_than_the_window_are_found() -> None:
    angles = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    radius = 440 + 14 * np.sign(np.sin(60 * angles))  # teeth of 14 pixels, which are 3 in the window
    outline = np.stack([500 + radius * np.cos(angles), 500 + radius * np.sin(angles)], 1)
    (wanted,) = rings_to_masks([[outline]], 1000, 1000)
    noise = np.random.default_rng(0).normal(0, 8, (1000, 1000, 3))
    image = np.where(wanted[..., None], (200, 120, 60), (60, 90, 110)) + noise
    rough = disc(500, 500, 440, 1000, 1000)
    refiner = sharpcontour.load_refiner()
    errors = []
    for refiner.zoom in (False, True):
        (mask,) = refiner.refine(image.clip(0, 255).astype(np.uint8), rough[None]).masks()
        errors.append(int((mask != wanted).sum()))
    assert errors[1] < 0.7 * errors[0] and errors[0] <= (rough != wanted).sum(), errors


def test_commands_ask_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: Any = None, device: Any = "cpu", zoom: bool = False) -> None:
        raise sharpcontour.InputError(f"zoom is {zoom}")

    monkeypatch.setattr("sharpcontour.anymask.refiner.load_refiner", load)
    photo = ["--image", str(DOCS / "coffee.jpg"), "--masks", str(DOCS / "cup.png")]
    judged = ["--val-json", "v.json", "--val-images", "."]
    monkeypatch.setattr("data.build_dataset", lambda *given: None)
    for option, wanted in ([], False), (["--zoom"], True):
        for command in (["refine.py", *photo], ["evaluate_masks.py", *judged]):
            assert f"zoom is {wanted}" in run_script(*command, *option, cwd=tmp_path).stderr, command
        with pytest.raises(sharpcontour.InputError, match=f"zoom is {wanted}"):
            page.serve(["--no-browser", "--port", "0", *option])
        with pytest.raises(sharpcontour.InputError, match=f"zoom is {wanted}"):
            hubconf.refiner(zoom=wanted)


def test_a_closer_look_is_other_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bool] = []

    def refine(self: sharpcontour.MaskRefiner, *given: Any, **more: Any) -> Any:
        looked.append(self.zoom)
        raise KeyboardInterrupt

    monkeypatch.setattr(sharpcontour.MaskRefiner, "refine", refine)
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((40, 40, 3), np.uint8))
    entry = {"image_id": 1, "category_id": 1, "score": 1, "segmentation": [[5, 5, 30, 5, 30, 30]]}
    (tmp_path / "r.json").write_text(json.dumps([entry]))
    command = ["refine.py", "--results", "r.json", "--images", ".", "--out", "out.json", "--device", "cpu"]
    (tmp_path / "out.json.part").write_text("")
    for option, others in ([], 0), (["--zoom"], 1), (["--zoom"], 1), ([], 2):
        done = run_script(*command, *option, cwd=tmp_path)
        assert done.returncode == 130 and looked[-1] == bool(option), done.stderr
        assert len(list(tmp_path.glob("out.json.part.*"))) == others


def test_small_objects_are_looked_at_once() -> None:
    photo = cv2.resize(cv2.imread(str(DOCS / "coffee.jpg"))[..., ::-1], (300, 200))
    mask = cv2.resize(cv2.imread(str(DOCS / "cup.png"), cv2.IMREAD_GRAYSCALE), (300, 200)) > 127
    refiner = sharpcontour.load_refiner()
    objects = []
    for refiner.zoom in (False, True):
        objects.append(refiner.refine(photo, mask[None]).rings[0])
    assert len(objects[0]) == len(objects[1]) and all(map(np.array_equal, *objects))


def test_given_traced_masks_are_those_of_read_masks() -> None:
    mask = odd_shape()
    one, other = given_traced([zoom.trace_window(mask)]), read_masks([mask], *SIZE)
    assert np.array_equal(one.rings.points, other.rings.points) and np.array_equal(one.boxes(), other.boxes())
