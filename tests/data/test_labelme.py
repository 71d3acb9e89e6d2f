"""A folder of LabelMe files becomes a data set, by the command that users type."""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data import DataConfig, build_dataset
from data.labelme import convert
from sharpcontour.errors import InputError
from sharpcontour.formats.labelme import write_labelme
from sharpcontour.masks.segmentation import to_rle
from tests.commands import run_script
from tests.sharpcontour.test_formats import GIVEN, OBJECTS, H, W, found, pixels, read

SQUARE = [[10, 10], [30, 10], [30, 30], [10, 30]]


def shape(label: str | None = "cat", points: Any = SQUARE, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def photo(path: Path, size: tuple[int, int] = (H, W), value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))
    return path


def label(path: Path, *shapes: Any, image: str | None = None, size: tuple[int, int] = (H, W), **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    named = f"{path.stem}.png" if image is None else image
    contents = {"shapes": list(shapes), "imagePath": named, "imageData": None, "imageHeight": size[0]}
    path.write_text(json.dumps({**contents, "imageWidth": size[1], **more}), encoding="utf-8")
    return path


def folder(root: Path, count: int = 4) -> Path:
    """Photographs with one cat each."""
    for k in range(count):
        photo(root / f"{k}.png")
        label(root / f"{k}.json", shape())
    return root


def prepare(cwd: Path, *options: str) -> CompletedProcess[str]:
    return run_script("prepare_data.py", "labelme", "--root", "labels", "--out", "set", *options, cwd=cwd)


def both(cwd: Path) -> dict[str, Any]:
    """The two files as one."""
    parts = [json.loads((cwd / "set" / f"{split}.json").read_text()) for split in ("train", "val")]
    assert parts[0]["categories"] == parts[1]["categories"]
    joined = {key: parts[0][key] + parts[1][key] for key in ("images", "annotations")}
    for entries in joined.values():
        assert len({entry["id"] for entry in entries}) == len(entries)
    return {**joined, "categories": parts[0]["categories"]}


def by_image(data: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    names = {image["id"]: image["file_name"] for image in data["images"]}
    return {name: [one for one in data["annotations"] if one["image_id"] == key] for key, name in names.items()}


def test_objects_with_holes_and_parts_keep_their_pixels(tmp_path: Path) -> None:
    for name in "ab":
        write_labelme(
            tmp_path / "labels" / f"{name}.json", found(OBJECTS), GIVEN, photo(tmp_path / "labels" / f"{name}.png")
        )
    done = prepare(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    data = both(tmp_path)
    assert [category["name"] for category in data["categories"]] == ["cat & <dog>", "tree", "été"]
    assert [category["id"] for category in data["categories"]] == [1, 2, 3]
    wanted = pixels(read(tmp_path / "labels" / "a.json"))
    for entries in by_image(data).values():
        masks = [coco_mask.decode(to_rle(one["segmentation"], H, W)).astype(bool) for one in entries]
        assert len(masks) == 4 and all((a == b).all() for a, b in zip(masks, wanted, strict=True))
        assert [one["area"] for one in entries] == [mask.sum() for mask in wanted]
        assert isinstance(entries[0]["segmentation"], dict) and isinstance(entries[3]["segmentation"], list)


def test_what_is_made_passes_the_check_and_is_read_for_training(tmp_path: Path) -> None:
    folder(tmp_path / "labels" / "deeper", 5)
    photo(tmp_path / "labels" / "empty.png")
    label(tmp_path / "labels" / "empty.json")
    label(tmp_path / "labels" / "crowd.json", shape(), shape("dog", flags={"iscrowd": True}))
    photo(tmp_path / "labels" / "crowd.png")
    done = prepare(tmp_path, "--val", "0.3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "set/train.json: 5 images" in done.stdout and "set/val.json: 2 images" in done.stdout
    assert "no object of dog" in done.stdout  # but a crowd
    check = next(line for line in done.stdout.splitlines() if line.startswith("check it:")).split()[4:]
    checked = run_script("prepare_data.py", *check, cwd=tmp_path)
    assert checked.returncode == 0 and checked.stdout.count("all readable") == 2, checked.stderr
    assert checked.stdout.count("nothing wrong") == 2
    data = both(tmp_path)
    assert by_image(data)["empty.png"] == [] and set(by_image(data)) >= {"deeper/0.png", "crowd.png"}
    assert [one["iscrowd"] for one in by_image(data)["crowd.png"]] == [0, 1]
    paths = {f"{s}_json": str(tmp_path / f"set/{s}.json") for s in ("train", "val")}
    images = {f"{s}_images": str(tmp_path / "labels") for s in ("train", "val")}
    config = DataConfig(name="coco", short_sides=(90,), **paths, **images)
    assert len(build_dataset(config, "train")[0, 0]["target"]["labels"]) <= 1


def test_the_split_follows_from_names_and_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "labels", 12)

    def chosen(root: str = "labels", **options: Any) -> list[str]:
        made = convert(tmp_path / root, tmp_path / "set", **options)
        return [image["file_name"] for image in made.splits["val"]["images"]]

    first = chosen()
    assert len(first) == 2 and chosen() == first and len(chosen(share=0.5)) == 6
    assert len({tuple(chosen(seed=seed)) for seed in range(4)}) > 1
    assert set(first) <= set(chosen(share=0.5))  # who asks for more keeps what is there
    assert len(chosen(share=0.001)) == 1 and len(chosen(share=0.999)) == 11
    shutil.copytree(tmp_path / "labels", tmp_path / "moved")
    assert chosen("moved") == first
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top, **more: ((a, b, c[::-1]) for a, b, c in walk(top, **more)))
    assert chosen() == first


def test_photographs_are_found_where_people_have_them(tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    label(labels / "json" / "a.json", shape(), image="..\\img\\A.png")
    photo(labels / "img" / "A.png")
    label(labels / "json" / "b.json", shape(), image="C:\\Users\\me\\b.png")
    photo(labels / "img" / "b.png")
    label(labels / "c.json", shape(), image="was.bmp")
    photo(labels / "c.jpg")
    photo(labels / "nobody.png")
    data = base64.b64encode(photo(tmp_path / "elsewhere.png", value=3).read_bytes()).decode()
    label(labels / "d.json", shape(), image="gone.png", imageData=data)
    label(labels / "e.json", shape())
    photo(tmp_path / "more" / "deep" / "e.png")
    done = prepare(tmp_path)
    assert done.returncode == 1 and "e.json: its photograph e.png is not there; put it" in done.stdout
    assert set(by_image(both(tmp_path))) == {"labels/img/A.png", "labels/img/b.png", "labels/c.jpg", "set/copies/d.png"}
    assert "the images are in . and below it" in done.stdout
    assert "1 x photograph found by the name of its LabelMe file" in done.stdout and "labels/c.jpg" in done.stdout
    assert "1 x photograph that was in its LabelMe file alone" in done.stdout
    assert "1 x image without a LabelMe file" in done.stdout and "nobody.png" in done.stdout
    assert cv2.imread(str(tmp_path / "set/copies/d.png")).max() == 3
    again = prepare(tmp_path, "--images", "more")
    assert again.returncode == 1 and "b.json: its photograph" in again.stdout  # it is to be looked for elsewhere now
    assert "more/deep/e.png" in by_image(both(tmp_path))
    (tmp_path / "set/copies/d.png").write_bytes(photo(tmp_path / "other.png").read_bytes())
    kept = prepare(tmp_path)
    assert kept.returncode == 1 and "d.png: is there already and not this photograph" in kept.stdout
    for place in ("one", "two"):
        photo(labels / place / "e.png")
    assert "e.json: its photograph e.png is not there, and may be labels/one/e.png, labels" in prepare(tmp_path).stdout


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_photograph_that_is_stored_turned_is_written_upright(orientation: int, tmp_path: Path) -> None:
    folder(tmp_path / "labels", 2)
    upright = np.zeros((60, 100, 3), np.uint8)
    upright[10:30, 10:30] = 255
    turned = np.rot90(upright, 2 if orientation == 3 else 1)
    jpeg = cv2.imencode(".jpg", np.ascontiguousarray(turned))[1].tobytes()
    tags = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0, 0, 0, 0, 0])
    marked = jpeg[:2] + b"\xff\xe1" + (len(tags) + 2).to_bytes(2, "big") + tags + jpeg[2:]
    (tmp_path / "labels" / "t.jpg").write_bytes(marked)
    label(tmp_path / "labels" / "t.json", shape(), image="t.jpg", size=(60, 100))
    done = prepare(tmp_path)
    assert done.returncode == 0 and "1 x photograph written upright" in done.stdout, done.stdout
    assert "set/copies/t_upright.jpg" in by_image(both(tmp_path))
    image = cv2.imread(str(tmp_path / "set/copies/t_upright.jpg"), cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_COLOR)
    assert image.shape == (60, 100, 3) and image[12:28, 12:28].min() > 200 and image[35:, 35:].max() < 50
    assert (tmp_path / "labels" / "t.jpg").read_bytes() == marked
    assert prepare(tmp_path).returncode == 0


FAULTS = {
    "two points": (shape(points=[[1, 1], [9, 9]]), "shape 1 (cat): a polygon must be a flat list"),
    "no pixel": (shape("fly", points=[[5, 5], [5.1, 5], [5.1, 5.1]]), "the object 'fly' has no pixel"),
    "unknown kind": (shape(kind="oriented_rectangle"), "a shape of type oriented_rectangle is not read; make it"),
    "another photograph": (shape(points=[[1, 1], [900, 1], [900, 900]]), "outline reaches from 1, 1 to 900, 900"),
    "no shape": (7, "shape 1: is no object of JSON; mend it"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_shape_costs_no_other(name: str, tmp_path: Path) -> None:
    broken, message = FAULTS[name]
    folder(tmp_path / "labels")
    label(tmp_path / "labels" / "1.json", shape("dog"), broken)
    done = prepare(tmp_path)
    assert done.returncode == 1 and "left out: labels/1.json: " in done.stdout and message in done.stdout
    assert "1 fault; all else is written" in done.stdout
    data = both(tmp_path)
    assert len(data["images"]) == 4 and len(data["annotations"]) == 4
    label(tmp_path / "labels" / "1.json", broken)  # nothing else is on it: not an empty photograph
    done = prepare(tmp_path)
    assert done.returncode == 1 and "nothing usable is left of it" in done.stdout
    assert len(both(tmp_path)["images"]) == 3 and "without a LabelMe file" not in done.stdout


def test_a_broken_file_costs_no_other(tmp_path: Path) -> None:
    labels = folder(tmp_path / "labels")
    (labels / "cut.json").write_text('{"shapes": [')
    (labels / ".hidden.json").write_text("?")
    label(labels / "small.json", shape(), size=(H, W + 1), image="0.png")
    label(labels / "again.json", shape(), image="./1.png")
    label(labels / "bad.json", shape())
    (labels / "bad.png").write_text("<html>")
    (labels / "list.json").write_text("[]")
    before = {path: path.read_bytes() for path in labels.iterdir()}
    done = prepare(tmp_path)
    assert done.returncode == 1 and "4 faults; all else is written" in done.stdout
    for message in (
        "labels/cut.json: not valid JSON",
        "labels/small.json: the mask is 121 x 90 pixels, the image 120 x 90; give masks of this image (the image is "
        "labels/0.png)",
        "labels/again.json: is of the photograph of labels/1.json, left out; join them",
        "labels/bad.png: the file is no image, or cut short; replace it (it is the photograph of labels/bad.json)",
        "1 x JSON file that is none of LabelMe, for it has no list 'shapes', left out (first: labels/list.json)",
    ):
        assert message in done.stdout, message
    assert set(by_image(both(tmp_path))) == {f"{k}.png" for k in range(4)}
    assert {path: path.read_bytes() for path in labels.iterdir()} == before


def test_shapes_without_a_label_are_counted(tmp_path: Path) -> None:
    labels = folder(tmp_path / "labels")
    label(labels / "1.json", shape(None), shape(""), shape("cat"))
    done = prepare(tmp_path)
    wanted = "2 x shape without a label, taken as of the class 'object' (first: labels/1.json: 1 1)"
    assert done.returncode == 0 and wanted in done.stdout
    assert [category["name"] for category in both(tmp_path)["categories"]] == ["cat", "object"]


def test_points_and_lines_are_counted_and_no_fault(tmp_path: Path) -> None:
    labels = folder(tmp_path / "labels")
    label(labels / "1.json", shape("nose", [[5, 5]], "point"), shape(), shape("Cat", [[1, 1], [9, 9]], "line"))
    label(labels / "2.json", shape("eye", [[5, 5]], "point"))
    label(labels / "3.json", shape("Cat"))
    done = prepare(tmp_path)
    assert (
        done.returncode == 0
        and "3 x point or line, which has no outline, left out (first: labels/1.json: shape 0" in (done.stdout)
    )
    assert "1 x class whose name differs" in done.stdout and "'cat' and 'Cat'" in done.stdout
    data = both(tmp_path)
    assert [category["name"] for category in data["categories"]] == ["Cat", "cat"]
    assert by_image(data)["2.png"] == []


def test_nothing_that_is_not_its_own_is_replaced(tmp_path: Path) -> None:
    labels = folder(tmp_path / "labels")
    shutil.copy(labels / "1.json", labels / "train.json")
    done = run_script("prepare_data.py", "labelme", "--root", "labels", "--out", "labels", cwd=tmp_path)
    assert done.returncode == 2 and "train.json: is there already and was not made of LabelMe files" in done.stderr
    (labels / "train.json").unlink()
    for _ in range(2):  # what it made itself is neither read nor kept
        done = run_script("prepare_data.py", "labelme", "--root", "labels", "--out", "labels", cwd=tmp_path)
        assert done.returncode == 0 and "none of LabelMe" not in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--root", "none", "--out", "set"), "none: no such folder"),
        (("--root", "empty", "--out", "set"), "empty: no .json file is in it or below it"),
        (("--root", "labels"), "say where to write train.json and val.json with --out DIR"),
        (("--root", "labels", "--out", "set"), "has 1 usable photograph and 1 classes; two and one are needed"),
        (("--root", "labels", "--check"), "coco --check"),
        (("--root", "labels", "--out", "set", "--val", "1"), "1 is no share above 0 and below 1"),
    ],
)
def test_wrong_use_is_told_in_a_line(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    folder(tmp_path / "labels", 1)
    (tmp_path / "empty").mkdir()
    done = run_script("prepare_data.py", "labelme", *options, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr
    assert not (tmp_path / "set" / "train.json").exists()


def test_without_a_folder_it_tells_what_it_needs(tmp_path: Path) -> None:
    done = run_script("prepare_data.py", "labelme", cwd=tmp_path)
    assert done.returncode == 0 and "--root FOLDER --out DIR" in done.stdout


def test_a_full_disk_ends_the_work(tmp_path: Path) -> None:
    labels = folder(tmp_path / "labels", 2)
    data = base64.b64encode((labels / "0.png").read_bytes()).decode()
    label(labels / "d.json", shape(), image="gone.png", imageData=data)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "copies").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"copies.*cannot be written"):
        convert(labels, tmp_path / "set")


def encoded(value: int) -> str:
    """A photograph of one gray, as LabelMe keeps it in its file."""
    data = cv2.imencode(".png", np.full((H, W, 3), value, np.uint8))[1]
    return base64.b64encode(data.tobytes()).decode()


def test_the_photograph_in_the_file_comes_before_another_of_the_same_name(tmp_path: Path) -> None:
    label(tmp_path / "labels/a/1.json", shape(), imageData=encoded(40))
    label(tmp_path / "labels/b/1.json", shape("dog"))
    photo(tmp_path / "labels/b/1.png", value=200)
    done = prepare(tmp_path, "--val", "0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    names = {image["file_name"] for image in both(tmp_path)["images"]}
    assert len(names) == 2 and any("copies" in name for name in names) and any("b/1.png" in name for name in names)


def test_one_of_the_same_name_elsewhere_is_told(tmp_path: Path) -> None:
    folder(tmp_path / "labels", 2)
    label(tmp_path / "labels/a/far.json", shape())
    photo(tmp_path / "labels/b/far.png")
    done = prepare(tmp_path)
    assert done.returncode == 0 and "see that it is the right one (first: labels/b/far.png)" in done.stdout


def test_a_linked_folder_of_files_beside_their_photographs(tmp_path: Path) -> None:
    for k in range(2):
        photo(tmp_path / f"data/img/{k}.png")
        label(tmp_path / f"data/json/{k}.json", shape(), image=f"../img/{k}.png")
    (tmp_path / "labels").symlink_to(tmp_path / "data/json")
    done = prepare(tmp_path)
    assert done.returncode == 0 and "the images are in data/img and below it" in done.stdout, done.stdout


def test_an_image_in_the_file_that_is_cut_short_leaves_no_copy(tmp_path: Path) -> None:
    folder(tmp_path / "labels", 2)
    label(tmp_path / "labels/cut.json", shape(), imageData=encoded(40)[:64])
    done = prepare(tmp_path)
    assert done.returncode == 1 and "labels/cut.json: its 'imageData' is an image that is cut short" in done.stdout
    assert not (tmp_path / "set/copies").exists()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")
def test_every_fault_is_named_and_a_pipe_is_one(tmp_path: Path) -> None:
    folder(tmp_path / "labels", 2)
    os.mkfifo(tmp_path / "labels/pipe.json")
    for k in range(25):
        (tmp_path / f"labels/broken{k}.json").write_text("{")
        photo(tmp_path / f"labels/broken{k}.png")
    done = prepare(tmp_path)
    assert done.returncode == 1 and done.stdout.count("left out: ") == 26 and "26 faults; all else" in done.stdout
    assert "pipe.json: is a device or a pipe" in done.stdout and "image without a LabelMe file" not in done.stdout
