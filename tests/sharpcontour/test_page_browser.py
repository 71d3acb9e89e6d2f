"""The page in a real browser: load a photograph, draw, refine, move a vertex, download, with mouse, finger and keys."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sharpcontour.masks.run_lengths import rles_to_masks
from sharpcontour.masks.segmentation import to_rle
from tests.browser import Browser
from tests.sharpcontour.helpers import iou
from tests.sharpcontour.test_page import DISC, ROUGH, H, W, photograph, served

CONTROL, ENTER, DELETE, RIGHT = "\ue009", "\ue007", "\ue017", "\ue014"

DROP = """
const [zone, name, bytes] = arguments, dataTransfer = new DataTransfer();
const target = document.querySelector(`[data-zone=${zone}]`);
dataTransfer.items.add(new File([new Uint8Array(bytes)], name));
for (const type of ["dragenter", "dragover", "drop"]) {
  target.dispatchEvent(new DragEvent(type, {dataTransfer, bubbles: true}));
}
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    for client in served(None):
        yield client.server.address


def open_page(tmp_path: Path, address: str, **options: Any) -> Browser:
    """A browser in which a photograph is loaded."""
    browser = Browser(tmp_path, **options)
    try:
        browser.open(address)
        browser.wait("about.ready")
        browser.choose_file("#photo-file", photograph(tmp_path / "photo.jpg"))
        browser.wait("photo")
    except BaseException:
        browser.close()
        raise
    return browser


def on_screen(browser: Browser, points: np.ndarray) -> list[tuple[float, float]]:
    """Points of the photograph (n, 2) in the window."""
    scale, x, y = browser.run(
        "const box = canvas.getBoundingClientRect(); return [view.scale, view.x + box.left, view.y + box.top]"
    )
    return [(scale * px + x, scale * py + y) for px, py in points.tolist()]


def saved(path: Path) -> bytes:
    """A file, as soon as the browser has it completely."""
    end = time.monotonic() + 30
    while not path.is_file() or not path.stat().st_size:
        assert time.monotonic() < end, sorted(path.parent.iterdir())
        time.sleep(0.05)
    return path.read_bytes()


def test_draw_refine_move_and_download(tmp_path: Path, address: str) -> None:
    browser = open_page(tmp_path, address)
    try:
        browser.drag(on_screen(browser, np.concatenate([ROUGH, ROUGH[:2]])))
        browser.wait("objects.length === 1")
        assert " refined in " in browser.run("return $('status').textContent")

        browser.click("[data-tool=edit]")
        x, y = browser.run("return objects[0].after[0].slice(20, 22)")
        browser.drag(on_screen(browser, np.array([[x, y], [x + 5, y + 5], [x + 20, y + 12]])))
        moved = browser.run("return objects[0].after[0].slice(20, 22)")
        assert np.allclose(moved, [x + 20, y + 12], atol=1) and browser.run("return past.length") == 2
        browser.press("z", hold=CONTROL)
        assert browser.run("return objects[0].after[0].slice(20, 22)") == [x, y]

        assert browser.run("return before") is False
        browser.click("#before")
        assert browser.run("return before && $('before').ariaPressed") == "true"
        browser.click("#before")

        mask = np.zeros((H, W), np.uint8)
        mask[10:30, 200:230] = 255
        cv2.imwrite(str(tmp_path / "mask.png"), mask)
        browser.run(DROP, "masks", "mask.png", list((tmp_path / "mask.png").read_bytes()))
        browser.wait("objects.length === 2")
        assert browser.run("return document.querySelector('#objects li:last-child input').value") == "mask"

        browser.run("photo.id = 'not kept any more'")  # the page sends the photograph again
        for kind in ("coco", "svg", "png"):
            browser.click(f"[data-download={kind}]")
            browser.wait("$('status').textContent.endsWith(': 2 objects')")
        written = json.loads(saved(tmp_path / "photo.json"))
        found = rles_to_masks([to_rle(one["segmentation"], H, W) for one in written["annotations"]], H, W)
        assert [one["name"] for one in written["annotations"]] == ["object 1", "mask"] and iou(found[0], DISC) > 0.9
        values = cv2.imdecode(np.frombuffer(saved(tmp_path / "photo_mask.png"), np.uint8), cv2.IMREAD_UNCHANGED)
        assert ((values == 1) == found[0]).all() and b'id="object-2"' in saved(tmp_path / "photo.svg")

        (tmp_path / "words.md").write_text("hello")  # of no kind that is read
        browser.choose_file("#masks-file", tmp_path / "words.md")
        browser.wait("$('status').className === 'bad'")
        told = browser.run("return $('status').textContent")
        assert told.startswith("words.md: is of no kind of masks") and browser.run("return objects.length") == 2
        assert all("422" in entry or "410" in entry for entry in browser.log())  # only what is refused here
    finally:
        browser.close()


def test_a_phone_in_the_dark(tmp_path: Path, address: str) -> None:
    browser = open_page(tmp_path, address, size=(390, 780), dark=True)
    try:
        assert browser.run("return document.documentElement.scrollWidth") <= 390
        assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(29, 33, 39)"
        browser.drag(on_screen(browser, ROUGH), kind="touch")
        browser.wait("objects.length === 1")
        assert not browser.log()
    finally:
        browser.close()


def test_corners_and_keys(tmp_path: Path, address: str) -> None:
    browser = open_page(tmp_path, address)
    try:
        for place in on_screen(browser, ROUGH[::3]):
            browser.drag([place])
        browser.press(ENTER)
        browser.wait("objects.length === 1")
        browser.click("[data-tool=edit]")
        browser.press("..")
        x = browser.run("return objects[0].after[0][2 * vertex[1]]")
        browser.press(RIGHT + RIGHT)
        assert browser.run("return objects[0].after[0][2 * vertex[1]]") == x + 2
        angles = np.linspace(0, 2 * np.pi + 0.3, 60)  # a free-hand outline that runs past its beginning, and across it
        radii = np.concatenate([np.full(54, 50.0), np.linspace(53, 47, 6)])
        line = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        cut = np.array(browser.run("return untangled(arguments[0])", line.tolist()))
        assert 50 < len(cut) < 60 and np.hypot(*(cut[0] - cut[-1])) < 8

        browser.press("d" + RIGHT + " " + RIGHT + " ")  # the crosshair sets two corners
        assert browser.run("return outline.length") == 2
        browser.press("\ue00c")  # Esc
        browser.press("z", hold=CONTROL)
        browser.press("b")
        browser.press(DELETE)
        assert browser.run("return [objects.length, outline.length, before]") == [0, 0, False]
        browser.press("z", hold=CONTROL)
        assert browser.run("return objects.length") == 1
    finally:
        browser.close()
