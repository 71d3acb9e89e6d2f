"""The command ``sharpcontour``, what it writes, and the same from Python; a classifier knows the objects."""

from __future__ import annotations

import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import sharpcontour
from sharpcontour.anymask.host import MaskHost
from sharpcontour.anymask.refiner import MaskRefiner, as_pixels, read_given
from sharpcontour.app import command, page
from sharpcontour.app.photograph import PICTURE
from sharpcontour.app.refining import read_photograph
from sharpcontour.contours.tracing import trace_mask
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.formats import output_files
from sharpcontour.formats.mask_files import read_mask_files
from sharpcontour.formats.named_masks import NamedMask, mask_rle
from sharpcontour.ipc import PointClassifier
from sharpcontour.masks.run_lengths import rles_to_masks
from sharpcontour.masks.segmentation import to_rle
from tests.commands import run_script
from tests.sharpcontour.helpers import not_utf8
from tests.sharpcontour.weights import write_weights

H, W = 90, 120
ROWS, COLUMNS = np.mgrid[:H, :W] + 0.5
DISC = np.hypot(COLUMNS - 40, ROWS - 45) < 24
RING = (np.hypot(COLUMNS - 90, ROWS - 40) < 22) & (np.hypot(COLUMNS - 90, ROWS - 40) > 8)
FILES = ["photo.json", "photo.svg", "photo_compare.png", "photo_mask.png"]
Command = Callable[..., tuple[int, str, str]]


def photograph(path: Path, orientation: int = 1) -> Path:
    """A photograph with EXIF data; its pixels are stored as they are here."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", exif=exif)
    return path


def save(path: str, mask: np.ndarray) -> str:
    Image.fromarray(mask.astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_weights(tmp_path_factory.mktemp("refiner") / "weights.pt").read_bytes()


@pytest.fixture
def call(
    tmp_path: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs the command in an empty folder with a photograph and weights: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    photograph(tmp_path / "photo.jpg")
    Path("weights.pt").write_bytes(weights)

    def run(*arguments: str, weights: str = "weights.pt") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sharpcontour", *arguments, "--weights", weights, "--device", "cpu"])
        with pytest.raises(SystemExit) as left:
            command.main()
        return (int(left.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that takes every object for a disc in the middle of its window, a little smaller than its box."""

    def classify(self: Any, described: Any, instance: Tensor, points: Tensor) -> Tensor:
        return (points - 128).norm(dim=-1) - 86

    monkeypatch.setattr(PointClassifier, "forward", classify)


@pytest.mark.usefixtures("oracle")
def test_a_photograph_and_a_mask(call: Command) -> None:
    save("rough.png", DISC * 255)
    code, shown, told = call("photo.jpg", "rough.png")
    assert code == 0 and not told
    first, second, last = shown.splitlines()
    assert first == "rough.png: 1 object (a mask)" and last.startswith("photo_sharp: photo.json, photo.svg")
    assert re.fullmatch(r"1\. rough: \d+\.\d % changed \(IoU 0\.\d{3} with the given mask\)", second)
    assert sorted(path.name for path in Path("photo_sharp").iterdir()) == FILES
    mask = cv2.imread("photo_sharp/photo_mask.png", cv2.IMREAD_UNCHANGED)
    iou = ((mask > 0) & DISC).sum() / ((mask > 0) | DISC).sum()
    assert set(np.unique(mask)) == {0, 255} and f"{iou:.3f}" in second and iou < 1
    assert cv2.imread("photo_sharp/photo_compare.png").shape[1] > 1000
    written = json.loads(Path("photo_sharp/photo.json").read_text())
    assert written["images"] == [{"id": 1, "file_name": "photo.jpg", "width": W, "height": H}]
    assert (rles_to_masks([as_rle(written["annotations"][0])], H, W)[0] == (mask > 0)).all()


def as_rle(annotation: dict[str, Any]) -> dict[str, Any]:
    return to_rle(annotation["segmentation"], H, W)


@pytest.mark.usefixtures("oracle")
def test_many_objects_and_one_that_is_empty(call: Command) -> None:
    save("ids.png", DISC + 2 * RING)
    save("none.png", DISC & False)
    code, shown, told = call("photo.jpg", "ids.png", "none.png", "--out", "a/b")
    assert code == 0 and not told
    lines = shown.splitlines()
    assert lines[0] == "ids.png: 2 objects (each value an object)" and lines[1] == "none.png: 1 object (a mask)"
    assert [line.split(":")[0] for line in lines[2:5]] == ["1. ids 1", "2. ids 2", "3. none"]
    assert lines[4:6] == ["3. none: empty, kept as it is", "1 of 3 given masks are empty"]
    mask = cv2.imread("a/b/photo_mask.png", cv2.IMREAD_UNCHANGED)
    assert set(np.unique(mask)) == {0, 1, 2}
    written = json.loads(Path("a/b/photo.json").read_text())["annotations"]
    assert [annotation["id"] for annotation in written] == [1, 2, 3] and written[2]["area"] == 0
    assert isinstance(written[0]["segmentation"], list) and isinstance(written[1]["segmentation"], dict)
    for k in (0, 1):
        found = rles_to_masks([as_rle(written[k])], H, W)[0]
        assert (found == (mask == k + 1)).all() and written[k]["area"] == found.sum()
        assert all(isinstance(value, float) for value in written[k]["bbox"])


@pytest.mark.usefixtures("oracle")
def test_every_format_is_written_and_can_be_given_again(call: Command) -> None:
    save("ids.png", DISC + 2 * RING)
    names = list(output_files.FORMATS)
    code, shown, told = call("photo.jpg", "ids.png", "--format", *names)
    assert code == 0 and not told
    written = {name: Path(f"photo_sharp/photo{output_files.FORMATS[name][0]}") for name in names}
    assert shown.splitlines()[-1] == f"photo_sharp: {', '.join(path.name for path in written.values())}"
    assert f"{written['labelme']}: 1 hole cut open by a bridge to the outline, for its polygons have none" in shown
    assert not Path("photo_sharp/photo_compare.png").exists()
    wanted = np.stack([cv2.imread("photo_sharp/photo_mask.png", cv2.IMREAD_UNCHANGED) == k for k in (1, 2)])
    for path in written.values():
        _, given, *_ = read_photograph(Path("photo.jpg"), [path])
        pixels = [rles_to_masks([mask_rle(mask.mask, (H, W))], H, W)[0] for mask in given]
        assert len(pixels) == 2 and (np.stack(pixels) == wanted).all(), path
    code, shown, told = call("photo.jpg", "photo_sharp/photo_cvat.xml", "--format", "yolo", "--out", "c")
    assert code == 0 and "c/photo.txt: classes 0 object (classes.txt)" in shown, told


@pytest.mark.usefixtures("oracle")
def test_the_commands_of_the_page_on_formats(call: Command) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    entry = {"image_id": 7, "category_id": 3, "segmentation": [trace_mask(DISC)[0].ravel().tolist()]}
    Path("masks.json").write_text(json.dumps([entry]))
    for folder in ("photos", "masks"):
        Path(folder).mkdir()
    for name, number in (("a", 3), ("b", 5)):
        Path(f"photos/{name}.jpg").write_bytes(Path("photo.jpg").read_bytes())
        Path(f"masks/{name}.json").write_text(json.dumps([{**entry, "category_id": number}]))
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("sharpcontour ")]
    assert len(lines) == 4 and len(blocks) == 3
    for line in lines:
        code, _, told = call(*line.split()[1:])
        assert code == 0, told
    assert Path("labels/classes.txt").read_text().splitlines() == ["", "", "", "category 3", "", "category 5"]
    assert Path("labels/b.txt").read_text().startswith("5 ")
    names = re.findall(r"^\| `([\w-]+)` \| `(\S+?)`", page, re.MULTILINE)
    assert [name for name, _ in names] == [*output_files.FORMATS, PICTURE]
    assert [file for _, file in names[:-1]] == [f"photo{ending}" for ending, _ in output_files.FORMATS.values()]


@pytest.mark.usefixtures("oracle")
def test_simplified_outlines_and_how_far_they_are_off(call: Command) -> None:
    save("ids.png", DISC + 2 * RING)
    call("photo.jpg", "ids.png", "--out", "all", "--format", "svg")
    code, shown, told = call("photo.jpg", "ids.png", "--out", "few", "--format", "svg", "--simplify", "0.7")
    assert code == 0, told
    all_of, few = (read_mask_files([f"{folder}/photo.svg"], (H, W), "photo.jpg")[0] for folder in ("all", "few"))
    counts, worst = [0, 0], 0.0
    for before, after in zip(all_of, few, strict=True):
        assert len(before.mask) == len(after.mask)
        for old, new in zip(before.mask, after.mask, strict=True):
            counts[0], counts[1] = counts[0] + len(old), counts[1] + len(new)
            outline = new.reshape(-1, 1, 2).astype(np.float32)
            worst = max(worst, *(abs(cv2.pointPolygonTest(outline, xy, True)) for xy in old.tolist()))
    assert counts[1] < counts[0] and 0 < worst <= 0.7
    said = re.search(r"simplified: (\d+) of (\d+) vertices, the greatest deviation is (\d.\d+) px", shown)
    assert said and [int(said[2]), int(said[1])] == counts and worst / 2 <= float(said[3]) <= 0.7
    for wrong in ("0", "-1", "nan", "inf", "x"):
        code, _, told = call("photo.jpg", "ids.png", "--simplify", wrong)
        assert code == 2 and "--simplify" in told
    assert "invalid choice: 'xml'" in call("photo.jpg", "ids.png", "--format", "xml")[2]


@pytest.mark.usefixtures("oracle")
def test_what_is_too_small_is_kept(call: Command) -> None:
    small = (abs(COLUMNS - 40) < 1) & (abs(ROWS - 45.5) < 0.5)
    assert "1. small: kept as it is" in call("photo.jpg", save("small.png", small))[1]
    assert (cv2.imread("photo_sharp/photo_mask.png", cv2.IMREAD_UNCHANGED) == small * 255).all()


@pytest.mark.parametrize("orientation", [1, 6])
def test_masks_are_upright_or_as_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: int) -> None:
    monkeypatch.chdir(tmp_path)
    photo = photograph(Path("photo.jpg"), orientation)
    upright = DISC if orientation == 1 else np.rot90(DISC, -1)
    pixels, _, notes, _ = read_photograph(photo, [save("upright.png", upright)])
    assert pixels.shape[:2] == upright.shape and len(notes) == 1
    Path("far.json").write_text(json.dumps([[2, 2, W - 2, 2, W - 2, H - 2]]))  # polygons fit only one of them too
    for stored in (save("stored.png", DISC), "far.json"):
        pixels, _, notes, _ = read_photograph(photo, [stored])
        assert pixels.shape[:2] == (H, W) and notes[0].startswith("photo.jpg: taken as stored") == (orientation == 6)
    size = "120 x 90" if orientation == 1 else "90 x 120"
    with pytest.raises(InputError, match=f"other.png: the mask is 120 x 89 pixels, its image {size}; correct one"):
        read_photograph(photo, [save("other.png", DISC[1:])])


@pytest.mark.usefixtures("oracle")
def test_yolo_of_a_photograph_as_stored_says_so(call: Command) -> None:
    photograph(Path("turned.jpg"), 6)
    save("stored.png", DISC)
    save("upright.png", np.rot90(DISC, -1))
    code, shown, _ = call("turned.jpg", "stored.png", "--format", "yolo", "coco")
    assert code == 0 and "turned_sharp/turned.txt: is of the photograph as stored, and read as of the upright" in shown
    code, shown, _ = call("turned.jpg", "upright.png", "--format", "yolo")
    assert code == 0 and "as stored" not in shown and shown.endswith("turned.txt; replaced: turned.txt\n")


def test_mistakes_are_told_in_a_line(call: Command) -> None:
    mask = save("rough.png", DISC)
    Path("no.jpg").write_text("no image")
    Path("broken.pt").write_bytes(b"broken")
    Path("taken").write_text("a file")
    Path("photo_mask.png").write_bytes(Path(mask).read_bytes())
    cases: list[tuple[tuple[str, ...], str, str]] = [
        (("none.jpg", mask), "weights.pt", "none.jpg: no such image"),
        (("no.jpg", mask), "weights.pt", "no.jpg: the file is no image"),
        (("photo.jpg", "none.png"), "weights.pt", "none.png: no such file of masks"),
        (("photo.jpg", mask), "none.pt", "none.pt: no such file of weights"),
        (("photo.jpg", mask), "broken.pt", "broken.pt: refused or damaged"),
        (("photo.jpg", mask), ".", ".: is a folder; give a file of weights"),
        (("photo.jpg", mask, "--out", "taken"), "weights.pt", "cannot be written"),
        (
            ("photo.jpg", "photo_mask.png", "--out", "."),
            "weights.pt",
            "photo_mask.png: the command also reads or writes this file",
        ),
    ]
    for arguments, weights, message in cases:
        code, _, told = call(*arguments, weights=weights)
        assert code == 2 and message in told and told.count("\n") == 1 and told.startswith("error: "), told
        assert not list(Path().glob("*/photo.json")) and not Path("photo.json").exists()


def test_names_that_are_no_text(call: Command) -> None:
    photo, mask = not_utf8(Path(), b"my caf\xe9.jpg"), not_utf8(Path(), b"m\xe9.png")
    photo.write_bytes(Path("photo.jpg").read_bytes())
    mask.write_bytes(Path(save("a.png", DISC)).read_bytes())
    code, _, told = call(str(photo), str(mask))
    assert code == 0, told
    stem = os.fsdecode(b"my caf\xe9")
    written = json.loads(Path(f"{stem}_sharp/{stem}.json").read_text())
    assert written["images"][0]["file_name"] == photo.name and written["annotations"][0]["name"] == mask.stem
    ElementTree.parse(f"{stem}_sharp/{stem}.svg")


@pytest.mark.usefixtures("oracle")
def test_refine_py_does_the_same(call: Command, tmp_path: Path) -> None:
    save("rough.png", DISC)
    call("photo.jpg", "rough.png", "--out", "a")
    arguments = ["--weights", "weights.pt", "--device", "cpu"]
    done = run_script(
        "refine.py", "--image", "photo.jpg", "--masks", "rough.png", "--out", "b", *arguments, cwd=tmp_path
    )
    assert done.returncode == 0 and "1. rough: 17.5 % changed" in done.stdout, done.stderr
    for name in FILES:
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    Path("images").mkdir()
    photograph(Path("images/7.jpg"))
    entry = {"image_id": 7, "category_id": 3, "score": 0.5, "segmentation": trace_mask(DISC)[0].ravel().tolist()}
    Path("r.json").write_text(json.dumps([entry]))
    results = ["--results", "r.json", "--images", "images", "--out", "r2.json", *arguments]
    done = run_script("refine.py", *results, cwd=tmp_path)
    assert done.returncode == 0 and "1 masks: 1 refined" in done.stdout, done.stderr
    refined = json.loads(Path("r2.json").read_text())[0]
    mask = cv2.imread("a/photo_mask.png", cv2.IMREAD_UNCHANGED) > 0
    assert (rles_to_masks([refined["segmentation"]], H, W)[0] == mask).all()


def test_a_closer_look_is_asked_for(call: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bool] = []

    def look(self: Any, image: Any, masks: Any) -> Detections:
        looked.append(self.zoom)
        found = read_given(image, masks, None, None, None)[2]
        return replace(found, coarse=found)

    monkeypatch.setattr(MaskRefiner, "refine", look)
    save("rough.png", DISC)
    assert call("photo.jpg", "rough.png", "--zoom")[0] == 0 and looked == [True]
    assert call("photo.jpg", "rough.png")[0] == 0 and looked[1:] == [False]
    assert page.parse_arguments(["--zoom"]).zoom and not page.parse_arguments([]).zoom


def test_options_of_refine_py_that_mean_nothing_together(tmp_path: Path) -> None:
    results = ["--results", "r.json", "--images", "images", "--out", "r2.json"]
    one = ["--image", "photo.jpg", "--masks", "rough.png"]
    for wrong, message in [
        (["--results", "r.json"], "needs --images"),
        (["--image", "photo.jpg"], "needs --masks"),
        ([*results, "--checkpoint", "c.pt", "--weights", "w.pt"], "two refiners"),
        ([*results, "--checkpoint", "c.pt", "--zoom"], "--zoom is for the package's refiner"),
        ([*results, "--masks", "rough.png"], "leave them out with --results"),
        ([*results, "--image-id", "3"], "leave them out with --results"),
        ([*results, "--format", "cvat"], "leave them out with --results"),
        ([*results, "--simplify", "1"], "leave them out with --results"),
        ([*one, "--images", "images"], "leave them out with --image"),
        ([*one, "--annotations", "g.json"], "leave them out with --image"),
        ([*one, "--pictures", "p"], "leave them out with --image"),
        ([], "required"),
    ]:
        done = run_script("refine.py", *wrong, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr, wrong


def found(objects: list[list[np.ndarray]]) -> Detections:
    count = len(objects)
    numbers = torch.zeros(count, 4), torch.ones(count), torch.zeros(count, dtype=torch.int64)
    return Detections(*numbers, objects, (H, W), coarse=Detections(*numbers, objects, (H, W)))


def test_svg_is_well_formed_and_escaped(tmp_path: Path) -> None:
    given = [NamedMask('<a> & "b"\x01', None, 'x"<'), NamedMask("\udce9", None), NamedMask("none", None)]
    outlines = [trace_mask(DISC), trace_mask(RING), []]
    output_files.write_svg(tmp_path / "a.svg", found(outlines), given)
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert root.attrib["viewBox"] == f"0 0 {W} {H}"
    paths = list(root)
    assert [path.attrib["id"] for path in paths] == ["object-1", "object-2", "object-3"]
    assert [path[0].text for path in paths] == ['<a> & "b"?', "?", "none"]
    assert paths[0].attrib["data-category"] == 'x"<' and paths[1].attrib["fill-rule"] == "evenodd"
    assert [path.attrib["d"].count("Z") for path in paths] == [1, 2, 0]
    first = paths[0].attrib["d"].strip("MZ").split("L")
    assert np.allclose([[float(value) for value in point.split(",")] for point in first], outlines[0][0])


def test_coco_keeps_categories_and_pixels(tmp_path: Path) -> None:
    # Two outlines that overlap mean, by the even-odd rule, what no polygons of COCO's say.
    crossing = [trace_mask(DISC)[0], trace_mask(np.roll(DISC, 20, 1))[0]]
    odd = [np.array([[10.1234567, 5], [70.7654321, 9], [40, 80.5]], np.float32)]
    objects = [crossing, odd, trace_mask(RING), []]
    given = [NamedMask("a", None, "cat", 9), NamedMask("b", None), NamedMask("c", None, "dog", 9), NamedMask("d", None)]
    output_files.write_coco(tmp_path / "a.json", found(objects), given, "photo.jpg")
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["categories"] == [{"id": 9, "name": "cat"}, {"id": 10, "name": "object"}, {"id": 11, "name": "dog"}]
    assert [isinstance(one["segmentation"], list) for one in written["annotations"]] == [False, True, False, False]
    again = rles_to_masks([as_rle(one) for one in written["annotations"]], H, W)
    assert (again == found(objects).masks()).all()


def test_own_ids_of_categories_stay(tmp_path: Path) -> None:
    given = [NamedMask("a", None), NamedMask("b", None, "cat", 1), NamedMask("c", None, "dog", 2)]
    output_files.write_coco(tmp_path / "a.json", found(3 * [[]]), given, "photo.jpg")
    written = json.loads((tmp_path / "a.json").read_text())
    assert {one["name"]: one["id"] for one in written["categories"]} == {"cat": 1, "dog": 2, "object": 3}
    assert [one["category_id"] for one in written["annotations"]] == [3, 1, 2]


@pytest.mark.usefixtures("oracle")
def test_crowds_and_scores_are_handed_on(call: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, look = [], MaskHost.look
    monkeypatch.setattr(MaskHost, "look", lambda self, *a: looked.append(len(a[1].view)) or look(self, *a))
    outline = trace_mask(DISC)[0].ravel().tolist()
    entries = [{"segmentation": [outline], "score": 0.25}, {"segmentation": [outline], "iscrowd": 1}]
    Path("m.json").write_text(json.dumps(entries))
    code, shown, told = call("photo.jpg", "m.json")
    assert code == 0 and "(a list of masks; 1 with iscrowd 1, kept as given)" in shown, told
    assert "1. m 1: 17.5 % changed" in shown and "2. m 2: kept as it is" in shown
    assert looked == [1]  # no crowd is refined in vain
    first, second = json.loads(Path("photo_sharp/photo.json").read_text())["annotations"]
    assert (first["iscrowd"], first["score"], second["iscrowd"]) == (0, 0.25, 1) and "score" not in second
    assert second["bbox"] == [16, 21, 48, 48]
    assert isinstance(second["segmentation"], dict) and (rles_to_masks([second["segmentation"]], H, W)[0] == DISC).all()


def test_masks_of_many_objects_have_16_bits(tmp_path: Path) -> None:
    columns = [trace_mask((k % W == COLUMNS // 1) & (k // W == ROWS // 30)) for k in range(300)]
    output_files.write_mask(tmp_path / "many.png", found(columns))
    values = cv2.imread(str(tmp_path / "many.png"), cv2.IMREAD_UNCHANGED)
    assert values.dtype == np.uint16 and (np.unique(values) == np.arange(301)).all()
    output_files.write_mask(tmp_path / "over.png", found([trace_mask(DISC), trace_mask(DISC)]))
    assert set(np.unique(cv2.imread(str(tmp_path / "over.png"), cv2.IMREAD_UNCHANGED))) == {0, 1}  # the first is seen


@pytest.mark.usefixtures("oracle")
def test_from_python(tmp_path: Path) -> None:
    refiner = sharpcontour.load_refiner(write_weights(tmp_path / "weights.pt"), "auto")
    assert isinstance(refiner, sharpcontour.MaskRefiner)
    path = photograph(tmp_path / "photo.jpg", orientation=6)
    upright = np.ascontiguousarray(np.rot90(DISC, -1))
    assert refiner.refine(path, upright[None]).size == (W, H)
    stored = refiner.refine(path, [DISC])
    assert stored.size == (H, W) and 0.5 < (stored.masks()[0] & DISC).sum() / DISC.sum() < 1
    with pytest.raises(InputError, match=r"masks\[0\]: the mask is 119 x 90 pixels"):
        refiner.refine(path, [DISC[:, 1:]])
    with pytest.raises(InputError, match="image 90 x 120"):  # what is wrong upright, not as stored
        refiner.refine(path, [DISC[1:, 1:]])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "YCbCr", "1", "I;16", "I", "LA"])
def test_images_of_pil(tmp_path: Path, mode: str) -> None:
    rgb = Image.open(photograph(tmp_path / "photo.jpg"))
    gray = rgb.convert("L")
    image = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257) if mode == "I;16" else rgb.convert(mode)
    pixels = as_pixels(image)
    assert pixels.dtype == np.uint8 and pixels.shape == (H, W, 3)
    if mode in ("L", "LA", "I;16", "I"):
        assert (pixels == np.asarray(gray)[..., None]).all()
    if mode in ("RGBA", "YCbCr"):
        assert abs(pixels.astype(int) - np.asarray(rgb)).max() < 5


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "weights.pt")
    state = torch.load(path, weights_only=True)
    for change in ({"host": {"width": 16}}, {"host": {"wide": 8}}, {"model": {}}, {"sharpcontour": None}):
        torch.save({**state, **change}, path)
        with pytest.raises(InputError, match=r"weights\.pt: does not fit this version \(.*\); export it anew"):
            sharpcontour.load_refiner(path)
