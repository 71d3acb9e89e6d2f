"""scripts/refine.py with a tiny untrained model, and with a classifier that knows the object."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from eval import pictures
from eval.refinement import Changes, broken_segmentations
from models import Predictor, build_model
from sharpcontour import SharpContourConfig
from sharpcontour.contours.tracing import trace_mask
from sharpcontour.detections import Detections
from sharpcontour.ipc import PointClassifier
from tests.eval.helpers import annotation, decode, encode, read_page
from tests.models.helpers import tiny_config
from tests.sharpcontour.helpers import huge_png, not_utf8

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "refine.py"
Command = Callable[..., tuple[int, str, str]]
H, W = 96, 128  # the network's own size, so a pixel is a pixel
CATEGORIES = [{"id": 7, "name": "disc"}, {"id": 9, "name": "ring"}]


def disc(radius: float, x: float = 60, y: float = 45) -> np.ndarray:
    rows, columns = np.mgrid[:H, :W] + 0.5
    return np.hypot(columns - x, rows - y) < radius


def entry(image_id: Any, segmentation: Any, **more: Any) -> dict[str, Any]:
    fields = {"image_id": image_id, "category_id": 7, "score": 0.8, "bbox": [25.0, 10, 70, 70], "id": 5}
    return fields | {"segmentation": segmentation} | more


def write(name: str, contents: Any) -> None:
    Path(name).write_text(json.dumps(contents))


def read(name: str) -> Any:
    return json.loads(Path(name).read_text())


def truth_of(*image_ids: int) -> dict[str, Any]:
    return {
        "images": [{"id": i, "height": H, "width": W, "file_name": f"{i:04}.png"} for i in image_ids],
        "categories": CATEGORIES,
        "annotations": [annotation(k, i, 7, disc(30)) for k, i in enumerate(image_ids, 1)],
    }


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process on images 3, 12 and 40: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("refine_command", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look
    spec.loader.exec_module(module)
    torch.manual_seed(0)

    def call(*arguments: str, refiner: bool = True, out: str = "out/refined.json") -> tuple[int, str, str]:
        model = build_model(tiny_config(), 2, SharpContourConfig() if refiner else None)
        monkeypatch.setattr("models.loading.load_model", lambda path, device: Predictor(model, CATEGORIES, 96, 160))
        fixed = ["--checkpoint", "c.pt", "--results", "found.json", "--images", "img", "--out", out]
        monkeypatch.setattr(sys, "argv", ["refine.py", *fixed, *arguments])
        with pytest.raises(SystemExit) as left:
            module._cli.run(module.main)
        return (int(left.value.code or 0), *capsys.readouterr())

    for name in ("0003", "0012", "0040"):
        pictures.save(tmp_path / "img" / f"{name}.png", np.full((H, W, 3), 120, np.uint8))
    return call


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that knows the object, the disc of radius 30."""

    def classify(self: Any, described: Any, instance: Tensor, points: Tensor) -> Tensor:
        return (points - torch.tensor([60.0, 45.0])).norm(dim=-1) - 30

    monkeypatch.setattr(PointClassifier, "forward", classify)


@pytest.mark.usefixtures("oracle")
def test_every_entry_comes_back_in_its_place(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpcontour.statistics.self_crossing", None)  # nobody sees what it takes long to find
    square = [[20.2, 20, 60, 20, 60, 60.7, 20, 60]]
    found = [
        entry(12, encode(disc(25)), area=1963, note={"by": "somebody"}),
        entry(3, square, score=0.1),
        entry(12, square, bbox=None),
        entry(3, encode(np.zeros((H, W))), category_id=12345),
        entry(40, encode(disc(25) & ~disc(9))),
    ]
    write("found.json", found)
    code, shown, told = command()
    assert code == 0, told
    after = read("out/refined.json")
    assert len(after) == 5
    for old, new in zip(found, after, strict=True):
        assert list(old) == list(new)
        assert {**old, "segmentation": None} == {**new, "segmentation": None}
    for k in (0, 1, 2, 4):
        assert after[k]["segmentation"]["size"] == [H, W]
        a, b = (decode(x["segmentation"], H, W).astype(bool) for x in (found[k], after[k]))
        assert 0.6 < (a & b).sum() / (a | b).sum() < 1.0
    assert after[3] == found[3]
    assert (
        "5 masks: 4 refined, 1 kept as they were (1 empty, 0 too small or nothing to mend, 0 would have got worse)"
        in shown
    )
    assert "4 of the refined changed; IoU of before and after: mean 0." in shown
    assert "3 images, " in shown and "results are in out/refined.json" in shown


@pytest.mark.usefixtures("oracle")
def test_entries_that_cannot_be_used_stay_and_are_named(command: Command) -> None:
    Path("img/0040.png").write_bytes(Path("img/0040.png").read_bytes()[:60])
    other = coco_mask.encode(np.ones((9, 8), np.uint8, order="F"))
    bad = [
        {"image_id": 3, "category_id": 7, "score": 0.5, "bbox": [1, 2, 3, 4]},
        entry(3, None),
        entry(3, {"size": [9, 8], "counts": other["counts"].decode()}),
        entry(3, {"size": [H, W], "counts": "PPPP"}),
        entry(3, {"size": [H, W], "counts": [5]}),
        entry(3, {"size": [H, W], "counts": "not one é"}),
        entry(3, [[1, 2, 3, 4]]),
        entry(3, []),
        entry(40, encode(disc(20))),
    ]
    found = [*bad[:4], entry(3, encode(disc(20))), *bad[4:]]
    write("found.json", found)
    code, shown, told = command()
    assert code == 0, told
    after = read("out/refined.json")
    assert [old == new for old, new in zip(found, after, strict=True)] == [k != 4 for k in range(10)]
    assert "1 masks: 1 refined" in shown
    last = next(line for line in shown.splitlines() if line.startswith("left as they are: "))
    for part in (
        "2 x no segmentation (first: entry 0)",
        "1 x mask of another size than the image's (first: entry 2)",
        "3 x run lengths that cannot be read or do not fill the image (first: entry 3)",
        "1 x polygons without points, or with broken ones (first: entry 7)",
        "1 x empty segmentation (first: entry 8)",
        "1 x image that cannot be read, 0040.png (first: entry 9)",
    ):
        assert part in last, (part, last)


@pytest.mark.usefixtures("oracle")
def test_with_annotations_before_and_after_are_scored(command: Command) -> None:
    write("truth.json", truth_of(3, 12, 40))
    found = [
        entry(3, encode(disc(28))),  # found, gets better
        entry(12, encode(disc(30))),  # found, gets worse: the polygon has corners
        entry(12, encode(disc(4, 10, 10)), score=0.1),  # nothing there
        entry(12, encode(disc(26)), category_id=9, score=0.2),  # another category
        entry(12, [[1, 2, 3, 4]], score=0.3),  # broken: cannot be scored
    ]
    Path("found.json").write_bytes(gzip.compress(json.dumps(found).encode()))
    code, shown, told = command("--annotations", "truth.json")
    assert code == 0, told
    assert "2 refined masks overlap an annotated object by IoU 0.5 or more: 1 improved, 1 got worse" in shown
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.startswith("AP")}
    before, after, change = map(float, rows["AP75"][3:])  # Boundary AP
    assert after >= before and rows["AP"] != rows["AP50"] and change == pytest.approx(after - before, abs=0.11)
    assert float(rows["AP"][2]) > 0 and float(rows["AP"][5]) > 0
    assert "1 x polygons without points, or with broken ones (first: entry 4)" in shown
    assert "no results for 1 of 3 images with objects, which AP counts as missed" in shown


@pytest.mark.usefixtures("oracle")
def test_an_image_of_another_size_than_annotated_is_left(command: Command) -> None:
    pictures.save("img/0003.png", np.zeros((W, H, 3), np.uint8))
    write("truth.json", truth_of(3, 12))
    found = [entry(3, encode(disc(28))), entry(12, encode(disc(28)))]
    write("found.json", found)
    code, shown, told = command("--annotations", "truth.json")
    assert code == 0, told
    assert [a == b for a, b in zip(found, read("out/refined.json"), strict=True)] == [True, False]
    assert "1 x image of another size than annotated, 0003.png (first: entry 0)" in shown


def test_an_image_of_another_size_is_not_decoded(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("img/0003.png").write_bytes(huge_png())
    write("truth.json", truth_of(3))
    write("found.json", [entry(3, encode(disc(28)))])
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    code, shown, told = command("--annotations", "truth.json")
    assert code == 0 and "1 x image of another size than annotated, 0003.png (first: entry 0)" in shown, told
    code, shown, told = command()
    assert code == 0 and "1 x image that cannot be read, 0003.png (first: entry 0)" in shown, told


@pytest.mark.usefixtures("oracle")
def test_a_turned_photograph_is_taken_in_the_orientation_that_its_masks_fit(command: Command) -> None:
    pixels = np.full((H, W, 3), 120, np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter when it is shown
    Image.fromarray(np.rot90(pixels)).save("img/0003.jpg", exif=exif)
    Path("img/0003.png").unlink()
    upright = entry(3, encode(disc(25)))
    write("found.json", [upright])
    code, shown, told = command()  # found by its number: its pixels as stored, which its mask does not fit
    assert code == 0 and "1 masks: 1 refined" in shown, told
    assert "1 x photograph taken turned upright as its EXIF data say, for its masks fit only that" in shown
    stored = coco_mask.encode(np.asfortranarray(np.rot90(disc(25)).astype(np.uint8)))
    write("found.json", [entry(3, stored | {"counts": stored["counts"].decode()}, file_name="0003.jpg")])
    code, shown, told = command()  # found by its name: upright, which its mask does not fit
    assert code == 0 and "1 masks: 1 refined" in shown and "taken as stored, not turned upright" in shown, told
    truth = truth_of(3)
    truth["images"][0]["file_name"] = "0003.jpg"
    write("truth.json", truth)
    write("found.json", [upright])
    code, shown, told = command("--annotations", "truth.json", "--pictures", "pic")
    assert code == 0 and "1 masks: 1 refined" in shown and "taken turned upright" in shown, told
    assert len(list(Path("pic").iterdir())) == 1


def test_pictures_of_what_changed_most(command: Command) -> None:
    write("found.json", [entry(12, encode(disc(25))), entry(3, encode(disc(2))), entry(40, encode(disc(20)), score=0)])
    assert command("--pictures", "pic")[0] == 0
    names = sorted(path.name for path in Path("pic").iterdir())
    assert len(names) == 3 and "01_0012.png" in names
    assert cv2.imread(f"pic/{names[0]}") is not None


@pytest.mark.usefixtures("oracle")
def test_a_page_shows_what_changed_most_first(command: Command) -> None:
    odd = '</script><script>alert("1")</script><!-- \U0001f431 \u4e2d'
    truth = truth_of(3, 12, 40)
    truth["categories"] = [{"id": 7, "name": odd}, {"id": 9, "name": "ring"}]
    write("truth.json", truth)
    Path("img/0040.png").write_bytes(Path("img/0040.png").read_bytes()[:60])
    found = [
        entry(12, encode(disc(28)), category_id=9),
        entry(3, encode(disc(22)), score=0.2),
        entry(12, encode(disc(2, 100, 80)), score=0.4),  # too small to be refined
        entry(12, encode(np.zeros((H, W)))),
        entry(12, None),
        entry(40, encode(disc(20))),
    ]
    write("found.json", found)
    Path("out").mkdir()
    Path("out/page.html").write_text("of before")
    code, shown, told = command("--html", "out/page.html", "--annotations", "truth.json")
    assert code == 0 and "out/page.html: 3 objects on 2 images, " in shown, told
    assert {path.name for path in Path("out").iterdir()} == {"page.html", "refined.json"}
    page, images = read_page("out/page.html")
    assert [one["name"] for one in page["images"]] == ["img/0003.png", "img/0012.png"] and len(images) == 2
    assert [one["place"] for one in page["images"]] == [1, 0]
    (most,), (less, none) = (one["objects"] for one in page["images"])
    after = decode(read("out/refined.json")[1]["segmentation"], H, W).astype(bool)
    assert most["change"] == pytest.approx(1 - (after & disc(22)).sum() / (after | disc(22)).sum(), abs=1e-4)
    assert most["change"] > less["change"] > none["change"] == 0 and most["move"] > less["move"] > none["move"] == 0
    assert [one["class"] for one in (most, less, none)] == [odd, "ring", odd]
    assert "before" not in none and none["after"].startswith("M") and page["score"] == 0.3
    assert page["absent"] == [
        "1 x no segmentation (first: entry 4)",
        "1 x image that cannot be read, 0040.png (first: entry 5)",
        "1 x object without any contour (first: img/0012.png)",
    ]


def test_files_are_found_by_name_or_number(command: Command) -> None:
    pictures.save("img/deep/photo.png", np.zeros((H, W, 3), np.uint8))
    Path("img/0013.txt").write_text("no image, so no doubt about the number")
    write("found.json", [entry(1, encode(disc(20)), file_name="deep/photo.png"), entry("12", encode(disc(20)))])
    code, shown, told = command()
    assert code == 0 and "2 masks: 2 refined" in shown, told


def test_names_that_are_no_text(command: Command) -> None:
    path, out = not_utf8(Path("img")), os.fsdecode(b"refin\xe9.json")
    path.write_bytes(Path("img/0003.png").read_bytes())
    name = path.name
    write("found.json", [entry(1, encode(disc(20)), file_name=name)])
    sys.stdout.reconfigure(errors="strict")  # type: ignore[union-attr]
    code, shown, told = command("--pictures", "pic", out=out)
    assert code == 0 and "results are in refin\\udce9.json" in shown, told
    assert read(out)[0]["file_name"] == name and len(list(Path("pic").iterdir())) == 1
    write("truth.json", {**truth_of(1), "images": [{"id": 1, "height": H, "width": W, "file_name": "no\udce9.png"}]})
    code, _, told = command("--annotations", "truth.json", out=out)
    assert code == 2 and "img: 1 of 1 images are missing: image 1 (no\\udce9.png)" in told


def test_no_detections_at_all(command: Command) -> None:
    write("found.json", [])
    write("truth.json", truth_of(3))
    code, shown, told = command("--annotations", "truth.json", "--html", "page.html")
    assert code == 0 and read("out/refined.json") == [] and "0 masks: 0 refined" in shown, told
    assert read_page("page.html")[0]["images"] == []


def test_crowds_stay_as_they_are(command: Command) -> None:
    entries = [entry(3, encode(disc(20)), iscrowd=1), entry(3, encode(disc(20)))]
    write("found.json", entries)
    code, shown, told = command()
    assert code == 0 and read("out/refined.json")[0] == entries[0], told
    assert "1 x entry with iscrowd 1, kept as it is" in shown + told


def test_mistakes_are_told_in_a_line_before_the_work(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Predictor, "refine", lambda *_, **__: pytest.fail("too late"))
    good = entry(3, encode(disc(20)))
    Path("img/77.png").write_text("no image")
    for name in ("003", "0050", "050"):  # of 50 there are two, too, but nothing asks for it
        pictures.save(f"img/{name}.png", np.zeros((H, W, 3), np.uint8))
    write("truth.json", truth_of(12, 99))
    Path("taken").mkdir()
    two = (entry(5, None), entry(6, None))
    cases: list[tuple[Any, tuple[str, ...], dict[str, Any], str]] = [
        ({"annotations": []}, (), {}, "found.json: not a list; expected COCO results"),
        ([good, 3], (), {}, "found.json: entry 1 has no 'image_id'"),
        ([{"score": 1}], (), {}, "found.json: entry 0 has no 'image_id'"),
        ([{**good, "image_id": 7.0}], (), {}, "found.json: entry 0: its 'image_id' is neither an integer nor a text"),
        ([{**good, "score": float("nan")}], (), {}, "found.json: entry 0 holds NaN or Infinity"),
        ([good], (), {}, "003.png and 0003.png are both image 3; remove one"),
        ([*two, {**good, "file_name": "0003.png"}], (), {}, "img: 2 of 3 images are missing: image 5 (no file_name"),
        ([{**good, "file_name": "77.png"}], (), {}, "img/77.png: is no image"),
        (
            [{**good, "file_name": "0003.png"}, good, {**good, "file_name": "77.png"}],
            (),
            {},
            "found.json: image_id 3 is of two files, 0003.png and 77.png",
        ),
        ([good], ("--annotations", "truth.json"), {}, "found.json: 1 image ids are not in truth.json: 3"),
        ([entry(99, None)], ("--annotations", "truth.json"), {}, "img: 1 of 1 images are missing: image 99 (0099.png)"),
        (
            [{**good, "image_id": 12, "category_id": 4}],
            ("--annotations", "truth.json"),
            {},
            "1 category ids are not in",
        ),
        (
            [{"image_id": 12, "segmentation": good["segmentation"]}],
            ("--annotations", "truth.json"),
            {},
            "found.json: entry 0 has no number as its 'score', which AP needs",
        ),
        (
            [{"image_id": 12, "category_id": 1, "segmentation": None, "score": 1}, {"image_id": 12, "score": 1}],
            ("--annotations", "truth.json"),
            {},
            "found.json: entry 1 has no 'category_id'",
        ),
        ([good], ("--images", "nowhere"), {}, "nowhere: no such folder of images"),
        ([good], ("--annotations", "nothing.json"), {}, "nothing.json: no such file"),
        ([good], (), {"out": "found.json"}, "found.json: the command also reads or writes this file"),
        ([good], (), {"out": "taken"}, "taken: is a folder"),
        ([good], ("--html", "taken"), {}, "--html taken: give a name that ends in .html"),
        (
            [{**good, "image_id": 12}],
            (),
            {"refiner": False},
            "c.pt: this checkpoint has no refiner; train with --refine",
        ),
    ]
    for found, arguments, options, message in cases:
        # Without a doubt about image 3 where that is not the point.
        if "are both" not in message:
            Path("img/003.png").unlink(missing_ok=True)
        write("found.json", found)
        code, _, told = command(*arguments, **options)
        assert code == 2 and message in told, (message, told)
        assert told.strip().splitlines()[-1].startswith("error: ") and not Path("out/refined.json").exists()
        pictures.save("img/003.png", np.zeros((H, W, 3), np.uint8))


def test_changes_are_counted() -> None:
    a, b = disc(20), disc(22)
    old = [trace_mask(a), trace_mask(a), [], trace_mask(disc(1))]
    new = [trace_mask(b), trace_mask(a), old[2], old[3]]
    numbers = torch.zeros(4, 4), torch.ones(4), torch.zeros(4, dtype=torch.int64)
    found = Detections(*numbers, new, (H, W), coarse=Detections(*numbers, old, (H, W)))
    changes = Changes()
    changed = changes.add(found)
    iou = (a & b).sum() / (a | b).sum()
    assert list(changed) == [0, 1] and changed[0][2] == pytest.approx(iou) and changed[1][2] == 1
    assert (changes.refined, changes.same, changes.empty, changes.kept) == (2, 1, 1, 1)
    assert changes.moved == (a ^ b).sum() and changes.pixels == 2 * a.sum()
    first, second = changes.report(harmed=1)
    assert (
        first
        == "4 masks: 2 refined, 2 kept as they were (1 empty, 0 too small or nothing to mend, 1 would have got worse)"
    )
    assert second.startswith(f"1 of the refined changed; IoU of before and after: mean {(1 + iou) / 2:.3f}")


@pytest.mark.usefixtures("oracle")
def test_polygons_as_tools_write_them_are_refined_and_counted(command: Command) -> None:
    square = [20.2, 20, 60, 20, 60, 60.7, 20, 60]
    points = [square[k : k + 2] for k in range(0, 8, 2)]
    write("found.json", [entry(12, [square]), entry(12, square), entry(12, points), entry(12, [points])])
    with pytest.warns(UserWarning, match=r"found.json: 3 x polygon written as points .*, understood"):
        code, shown, told = command()
    assert code == 0, told
    assert "4 masks: 4 refined" in shown and "left as they are" not in shown
    after = [one["segmentation"] for one in read("out/refined.json")]
    assert after[0]["size"] == [H, W] and after == after[:1] * 4


def test_whole_and_broken_segmentations() -> None:
    whole = [encode(disc(9)), encode(np.zeros((H, W))), [[1.0, 2, 9, 2, 9, 9]], {"size": [H, W], "counts": [H * W]}]
    assert broken_segmentations([{"segmentation": s} for s in whole], H, W) == {}
    assert list(broken_segmentations([{"segmentation": whole[0]}, {}, {"segmentation": 3}], H, W)) == [1, 2]
    assert broken_segmentations([], H, W) == {}
