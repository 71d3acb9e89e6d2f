"""scripts/predict.py with a stand-in for the model."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from eval import pictures
from sharpcontour.detections import Detections
from tests.eval.helpers import read_page
from tests.sharpcontour.helpers import not_utf8

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "predict.py"
Command = Callable[..., tuple[int, str, str]]


class _Predictor:
    """Finds a frame in every image, and a square of low score."""

    class_names, category_ids, finds = ("frame", "square"), (7, 9), True

    def __init__(self, refine: bool) -> None:
        self.refine, self.config = refine, {"model": "dance"}
        self.model = torch.nn.Conv2d(3, 4, 3)
        self.in_bf16: set[bool] = set()

    def predict(self, image: np.ndarray, trace: bool = False) -> Detections:
        assert image.dtype == np.uint8 and trace
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        self.in_bf16.add(self.model(pixels).dtype == torch.bfloat16)
        outer = np.array([[4, 4], [30, 4], [30, 30], [4, 30]], np.float32)
        rings = [[outer, outer * 0.5 + 8], [outer[:3] * 0.5]]
        boxes = torch.tensor([[4.0, 4, 30, 30], [2, 2, 15, 15]])
        found = Detections(boxes, torch.tensor([0.9, 0.1]), torch.tensor([0, 1]), rings, image.shape[:2])
        if not self.refine:
            return found
        start = [[ring + 1 for ring in part] for part in rings]
        return replace(found, coarse=replace(found, shapes=start), steps=[start, start, rings])


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("predict_command", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*arguments: str, refine: bool = True) -> tuple[int, str, str]:
        predictor = _Predictor(refine)
        monkeypatch.setattr("models.loading.load_model", lambda path, device: predictor)
        monkeypatch.setattr(sys, "argv", ["predict.py", "--checkpoint", "c.pt", "--out", "out", *arguments])
        with pytest.raises(SystemExit) as left:
            module._cli.run(module.main)
        assert predictor.in_bf16 <= {"bf16" in arguments}
        return (int(left.value.code or 0), *capsys.readouterr())

    for name in ("a/0012.png", "a/0003.png", "b/0003.png"):
        pictures.save(tmp_path / name, np.full((40, 50, 3), 120, np.uint8))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    return call


def test_names_that_differ_by_capitals_have_pictures_of_their_own(command: Command) -> None:
    pictures.save("a/scene.png", np.full((40, 50, 3), 120, np.uint8))
    pictures.save("b/Scene.png", np.full((40, 50, 3), 120, np.uint8))
    assert command("a/scene.png", "b/Scene.png")[0] == 0
    assert {path.name for path in Path("out").glob("*_compare.png")} == {"scene_compare.png", "Scene_2_compare.png"}


def test_a_folders_images_are_all_that_can_be_read(command: Command) -> None:
    Path("c").mkdir()
    for name in ("one.ppm", "two", "three.png"):
        pixels = cv2.imencode(Path(name).suffix or ".png", np.full((40, 50, 3), 120, np.uint8))[1]
        Path("c", name).write_bytes(pixels.tobytes())
    Path("c/broken.jpg").write_text("no image")
    code, shown, _ = command("c")
    assert code == 0 and "3 images, " in shown and "1 images left out: c/broken.jpg: " in shown


def _read(path: str) -> Any:
    return json.loads(Path(path).read_text())


def test_pictures_and_results(command: Command) -> None:
    code, shown, _ = command("a", "b/0003.png", "a/0012.png")
    assert code == 0 and "3 images, 6 instances, 3 of them drawn" in shown
    stems = ("0003", "0012", "0003_2")
    made = {f"{stem}_{kind}.png" for stem in stems for kind in ("compare", "evolution")}
    assert {path.name for path in Path("out").iterdir()} == made | {"results.json", "polygons.json"}
    results, polygons = _read("out/results.json"), _read("out/polygons.json")
    assert [entry["image_id"] for entry in results] == [1, 1, 2, 2, 3, 3]  # two files have the number 3
    assert [entry["file_name"] for entry in results[::2]] == ["a/0003.png", "a/0012.png", "b/0003.png"]
    assert results[0]["category_id"] == 7
    assert coco_mask.area(results[0]["segmentation"]) == 26 * 26 - 13 * 13
    assert (polygons[1]["file_name"], polygons[1]["width"], polygons[1]["height"]) == ("a/0012.png", 50, 40)
    frame, square = polygons[1]["instances"]
    assert (frame["class"], frame["bbox"], square["class"]) == ("frame", [4, 4, 26, 26], "square")
    assert [ring["hole"] for ring in frame["rings"]] == [False, True]
    assert frame["rings"][0]["points"] == [[4, 4], [30, 4], [30, 30], [4, 30]]


def test_numbers_as_names_are_image_ids(command: Command) -> None:
    assert command("a")[0] == 0
    results = _read("out/results.json")
    assert [entry["image_id"] for entry in results] == [3, 3, 12, 12] and results[0]["file_name"] == "0003.png"


def test_model_without_a_refiner(command: Command) -> None:
    assert command("a/0012.png", refine=False)[0] == 0
    assert {path.name for path in Path("out").iterdir()} == {"0012.png", "results.json", "polygons.json"}


def test_half_precision(command: Command) -> None:
    assert command("a", "--amp", "bf16", "--device", "cpu")[0] == 0
    assert command("a", "--tf32", "--device", "cpu")[0] == 2


def test_no_detection_is_good_enough_for_a_picture(command: Command) -> None:
    assert command("a/0012.png")[0] == 0 and Path("out/0012_evolution.png").is_file()
    assert command("a/0012.png", "--score-threshold", "0.95")[0] == 0  # which leaves no picture of before
    assert {path.name for path in Path("out").glob("*.png")} == {"0012_compare.png"}
    assert len(_read("out/results.json")) == 2


def test_a_page_of_images_of_every_kind(command: Command) -> None:
    cv2.imwrite("a/0005.png", np.full((60, 70), 40000, np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("L", (50, 40), 200).save("a/turned.jpg", exif=turned)
    Image.new("RGB", (1600, 200), (200, 30, 30)).save("a/large.jpg")
    Path("a/cut.png").write_bytes(Path("a/0012.png").read_bytes()[:60])
    Path("page.html").write_text("of before")
    names = ("0003.png", "0005.png", "cut.png", "large.jpg", "turned.jpg")
    code, shown, told = command(*(f"a/{name}" for name in names), "--html", "page.html")
    assert code == 0 and "page.html: 4 objects on 4 images, " in shown, told
    page, images = read_page("page.html")
    assert (page["before"], page["after"], page["refined"]) == ("DANCE", "DANCE + SharpContour", True)
    sizes = {one["name"]: (one["width"], one["height"], one["scale"]) for one in page["images"]}
    assert sizes == {
        "a/0003.png": (50, 40, 1),
        "a/0005.png": (70, 60, 1),
        "a/large.jpg": (1600, 200, 0.8),
        "a/turned.jpg": (40, 50, 1),
    }
    for one, pixels in zip(page["images"], images, strict=True):
        assert pixels.shape[1::-1] == (round(one["width"] * one["scale"]), round(one["height"] * one["scale"]))
    seen = {one["name"]: int(pixels[5, 5, 0]) for one, pixels in zip(page["images"], images, strict=True)}
    assert seen["a/0005.png"] == pytest.approx(40000 / 257, abs=3) and seen["a/large.jpg"] == pytest.approx(30, abs=6)
    (frame,) = page["images"][0]["objects"]
    assert frame["after"] == "M40 40l260 0 0 260-260 0zM100 100l130 0 0 130-130 0z"
    assert frame["before"].startswith("M50 50l260 0") and frame["box"] == [4, 4, 31, 31]
    assert (frame["class"], frame["move"]) == ("frame", 1.4) and frame["change"] > 0
    assert any(line.startswith("1 x image left out (first: a/cut.png: the file is no image") for line in page["absent"])
    assert "4 x detection of a score below 0.3, or found a second time (first: a/0003.png)" in page["absent"]


def test_a_page_without_a_before(command: Command) -> None:
    assert command("a", "--html", "out/page.html", refine=False)[0] == 0
    page, images = read_page("out/page.html")
    assert not page["refined"] and len(images) == 2
    assert set(page["images"][0]["objects"][0]) == {"class", "score", "after", "box"}
    code, shown, _ = command("a", "--html", "out/page.html", "--score-threshold", "1")
    assert code == 0 and "out/page.html: 0 objects on 0 images" in shown
    page, images = read_page("out/page.html")
    assert not images and "2 x image without an object (first: a/0003.png)" in page["absent"]


def test_names_that_are_no_text(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """A Latin-1 name in a folder, and as --out: no crash; refine.py finds the file again by its "file_name"."""
    path = not_utf8(Path("a"))
    path.write_bytes(Path("a/0012.png").read_bytes())
    out = os.fsdecode(b"\xe9t\xe9")
    sys.stdout.reconfigure(errors="strict")  # type: ignore[union-attr]
    code, shown, told = command("a", "--out", out)
    assert code == 0, told
    assert "polygons.json are in \\udce9t\\udce9" in shown
    assert [entry["file_name"] for entry in _read(f"{out}/results.json")][-1] == path.name
    assert (Path(out) / os.fsdecode(b"caf\xe9_compare.png")).is_file()
    code, _, told = command(os.fsdecode(b"no\xe9"))
    assert code == 2 and "no\\udce9: no such image or folder" in told


def test_mistakes_are_told_in_a_line(command: Command) -> None:
    data = Path("a/0012.png").read_bytes()
    Path("cut.png").write_bytes(data[: len(data) // 2])
    Path("empty.png").write_bytes(b"")
    Path("none").mkdir()
    Path("b.html").mkdir()
    pictures.save("out/0012_compare.png", np.zeros((4, 4, 3), np.uint8))
    cases = {
        ("missing.png",): "missing.png: no such image",
        ("a/notes.txt",): "a/notes.txt: is no image",
        ("empty.png",): "empty.png: is no image",
        ("cut.png",): "cut.png: the file is no image, or cut short",
        ("none",): "none: holds no image",
        ("a", "--score-threshold", "30"): "--score-threshold 30.0: choose a number from 0 to 1",
        ("a", "--html", "a/0012.png"): "--html a/0012.png: give a name that ends in .html",
        ("a", "--html", "a/notes.txt/p.html"): "a/notes.txt/p.html: cannot be written",
        ("a", "--html", "b.html"): "b.html: is a folder",
        ("a", "out/0012_compare.png"): "0012_compare.png there is an image to be read",
    }
    for arguments, message in cases.items():
        code, _, told = command(*arguments)
        assert code == 2 and message in told and told.strip().splitlines()[-1].startswith("error: "), told
