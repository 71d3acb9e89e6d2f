"""The page of before and after: what it leaves out, and how it works in a browser."""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.annotations import Problems
from eval.pictures import viewer
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.io.images import read_image
from tests.browser import RIGHT, Browser
from tests.eval.helpers import read_page

SIZE = (90, 120)
NAMES = ["disc", '<b>"bold"</b> & \N{GREEK SMALL LETTER ALPHA}']


def disc(radius: float, x: float = 60, y: float = 45) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1).astype(np.float32)


def photo(name: str, *objects: tuple[float, float, float, int]) -> viewer.Photo:
    """An image with discs, each its radius before and after, score and class."""
    before, after, scores, labels = zip(*objects, strict=True)
    numbers = torch.zeros(len(objects), 4), torch.tensor(scores), torch.tensor(labels)
    coarse = Detections(*numbers, [[disc(radius)] for radius in before], SIZE)
    found = Detections(*numbers, [[disc(radius)] for radius in after], SIZE, coarse=coarse)
    pixels = np.full((*SIZE, 3), 120, np.uint8)
    return viewer.Photo(name, lambda: pixels, viewer.record_of(viewer.describe(found, NAMES)))


def write(path: Path, *photos: viewer.Photo, score: float = 0.0) -> dict[str, Any]:
    viewer.write_page(path, viewer.Heading("title </title>", score=score), photos, Problems())
    return read_page(path)[0]


def test_what_is_left_out_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "OBJECTS", 2)
    many = photo("many.png", (20, 22, 0.5, 0), (20, 24, 0.9, 0), (20, 21, 0.7, 0))
    assert [one["score"] for one in many.record["objects"]] == pytest.approx([0.9, 0.7])
    gone = viewer.Photo("gone.png", partial(read_image, tmp_path / "gone.png"), photo("", (9, 20, 1, 0)).record)
    page = write(tmp_path / "page.html", photo("small.png", (20, 21, 1, 0)), many, gone)
    assert [one["name"] for one in page["images"]] == ["many.png", "small.png"]
    assert page["absent"] == [
        "1 x object beyond the 2 of the best score on its image (first: many.png)",
        f"1 x image that can no longer be read, {tmp_path / 'gone.png'}: no such image (first: gone.png)",
    ]
    monkeypatch.setattr(viewer, "LARGEST", 1)
    page = write(tmp_path / "page.html", photo("small.png", (20, 21, 1, 0)), many)
    assert page["images"] == [] and page["absent"][1] == "2 x image that changed less, beyond 0 MiB (first: many.png)"


def test_images_are_held_one_at_a_time(tmp_path: Path) -> None:
    read: list[weakref.ref[np.ndarray]] = []

    def pixels() -> np.ndarray:
        assert all(image() is None for image in read)
        made = np.zeros((*SIZE, 3), np.uint8)
        read.append(weakref.ref(made))
        return made

    record = photo("", (20, 21, 1, 0)).record
    write(tmp_path / "page.html", *(viewer.Photo(f"{k}.png", pixels, record) for k in range(3)))
    assert len(read) == 3


def test_a_full_disk_leaves_the_page_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "page.html").write_text("of before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"page.html: the disk is full"):
        write(tmp_path / "page.html", photo("a.png", (20, 21, 1, 0)))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of before"]


def test_odd_rings_are_drawn_as_far_as_they_can_be() -> None:
    ring, point = disc(5), np.full((3, 2), 2.04, np.float32)
    cases = {
        "M20 20z": [point],
        "": [ring[:2], ring * np.float32("nan")],
        "M-5-5l10 0 0 10z": [np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5]])],
        "M0 0l10000000 0 0 10z": [np.array([[0, 0], [1e30, 0], [1e30, 1]])],
    }
    for path, rings in cases.items():
        assert viewer._path(rings) == path


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with contextlib.closing(Browser(size=(1200, 900))) as started:
        yield started


@pytest.fixture
def opened(tmp_path: Path, window: Browser) -> Browser:
    """A page of three images and four objects in the browser."""
    photos = [
        photo("folder/little.png", (30, 31, 0.9, 0)),
        photo("much.png", (15, 30, 0.5, 1), (30, 30, 0.2, 0)),
        photo("some.png", (25, 30, 0.8, 0)),
    ]
    write(tmp_path / "page.html", *photos, score=0.1)
    window.open(f"file://{tmp_path}/page.html")
    window.wait_for(".stage")
    return window


CARDS = """return [...document.querySelectorAll('.card')].map(
    (card) => [...card.querySelectorAll('p')].map((line) => line.textContent))"""
DIVIDED = "return parseFloat(getComputedStyle(document.querySelector('.stage')).getPropertyValue('--at'))"


def test_what_changed_most_comes_first(opened: Browser) -> None:
    cards = opened.run(CARDS)
    assert [card[2] for card in cards] == ["much.png", "some.png", "little.png", "much.png"]
    assert [card[0] for card in cards] == [f"{NAMES[1]} 0.50", "disc 0.80", "disc 0.90", "disc 0.20"]
    changes = [float(card[1].split()[1]) for card in cards[:3]]
    assert changes == sorted(changes, reverse=True) and cards[0][1] == "change 75.0 %, move 15 px"
    assert cards[3][1] == "no pixel changed"
    assert opened.run("return document.title") == "title </title>"
    assert opened.run("return $('counts').textContent") == "4 objects on 3 images: 3 changed, 1 without a changed pixel"
    opened.type("[name=order]", "highest score")
    assert [card[0].split()[-1] for card in opened.run(CARDS)] == ["0.90", "0.80", "0.50", "0.20"]


def test_the_filters_filter(opened: Browser) -> None:
    opened.type("[name=kind]", NAMES[1])
    assert [card[0] for card in opened.run(CARDS)] == [f"{NAMES[1]} 0.50"]
    opened.click("#all")
    assert len(opened.run(CARDS)) == 4
    opened.type("[name=change]", RIGHT * 70)
    assert opened.run("return fields.changeText.value") == "7.0 %"
    assert [card[2] for card in opened.run(CARDS)] == ["much.png", "some.png"]
    opened.click("#all")
    opened.type("[name=score]", RIGHT * 60)
    assert [card[2] for card in opened.run(CARDS)] == ["some.png", "little.png"]
    assert opened.run("return $('shown').textContent") == "Shown: 2 of 4 objects on 2 images"
    opened.type("[name=change]", RIGHT * 700)
    assert opened.run("return $('more').textContent") == "No object is left: choose less strictly."
    opened.click("#all")
    opened.click("[value=images] + span")
    assert [card[0] for card in opened.run(CARDS)] == ["much.png", "some.png", "little.png"]
    assert opened.run(CARDS)[0][1:] == ["2 objects, change up to 75.0 %", "120 x 90 px"]


def test_low_scores_are_hidden_at_first_unless_all_are_low(tmp_path: Path, window: Browser) -> None:
    for scores, shown in (((0.2, 0.9), 1), ((0.2, -1.0), 2)):
        write(tmp_path / "page.html", photo("a.png", *((20, 21, score, 0) for score in scores)), score=0.3)
        window.open(f"file://{tmp_path}/page.html")
        assert len(window.run(CARDS)) == shown
        window.click("#all")
        assert len(window.run(CARDS)) == 2


def test_the_divider_moves_by_key_mouse_and_finger(opened: Browser) -> None:
    clip = "return getComputedStyle(document.querySelector('.stage .before')).clipPath"
    assert opened.run(DIVIDED) == 50
    before = opened.run(clip)
    opened.type(".divider", RIGHT * 4)
    assert opened.run(DIVIDED) == 52 and opened.run(clip) != before
    for kind in ("mouse", "touch"):
        was, width = opened.run(DIVIDED), opened.run("return document.querySelector('.stage').clientWidth")
        opened.drag_element(".divider", -round(width / 4), kind=kind)
        assert opened.run(DIVIDED) < was - 15, kind
        opened.type(".divider", RIGHT * 50)
    opened.click("[name=at][value='0'] + span")
    opened.wait_for(".stage")
    assert opened.run(DIVIDED) == 0
    opened.click("[value=both] + span")
    opened.wait_for(".stage.both")
    assert opened.run(clip) == "none"


def test_an_object_is_enlarged(opened: Browser) -> None:
    opened.click(".card button")
    assert opened.run("return $('name').textContent") == f"{NAMES[1]} 0.50"
    assert opened.run("return $('facts').textContent") == "change 75.0 %, move 15 px; much.png, 120 x 90 px"
    wide = opened.run("return view.width")
    opened.click("[data-do=in]")
    assert opened.run("return view.width") == pytest.approx(wide / 1.5)
    opened.type("#large .divider", RIGHT * 80)  # out of the way of what follows
    x, unit = opened.run("return [view.x, view.width / $('large').clientWidth]")
    opened.drag_element("#large", 50)
    assert opened.run("return view.x") == pytest.approx(x - 50 * unit, abs=1e-6)
    opened.click("[data-do=next]")
    assert opened.run("return $('name').textContent") == "disc 0.80"
    opened.click("[data-do=close]")
    assert not opened.run("return dialog.open")


def test_nothing_is_fetched_and_nothing_fails(opened: Browser) -> None:
    asked = opened.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(name.startswith("blob:") for name in asked)
    assert opened.run("return document.images.length + document.querySelectorAll('.photo image').length") > 0
    assert opened.log() == []
