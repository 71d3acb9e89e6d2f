"""A folder of photographs and a folder of masks: whose masks are whose, and nothing is left out silently."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sharpcontour.anymask.refiner import read_given
from sharpcontour.app import command
from sharpcontour.app.folder import files_of, refine_folder
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.io.files import UnwritableError

H, W = 40, 50
MASK = np.zeros((H, W), np.uint8)
MASK[10:30, 15:40] = 255


class Shifted:
    """Moves every outline a pixel to the right."""

    def refine(self, image: Any, masks: Any) -> Detections:
        coarse = read_given(image, masks, None, None, None)[2]
        return coarse.refined([[ring + np.float32([1, 0]) for ring in rings] for rings in coarse.rings])


def picture(path: str, pixels: np.ndarray) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(path, pixels)
    return Path(path)


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three photographs in an empty folder, two of which are called nearly alike."""
    monkeypatch.chdir(tmp_path)
    for name in ("dog", "dog_1", "cat"):
        picture(f"photos/{name}.jpg", np.full((H, W, 3), 128, np.uint8))


def refine(*masks: str, formats: tuple[str, ...] = ("png",), out: str | None = None) -> int:
    return refine_folder(Shifted, Path("photos"), list(map(Path, masks)), out, formats=formats)


def test_every_photograph_has_its_own_masks(capsys: pytest.CaptureFixture[str]) -> None:
    picture("masks/dog.png", MASK)
    picture("masks/dog_1.png", MASK[::-1])
    for k, mask in enumerate((MASK, 255 - MASK, MASK * 0), 1):
        picture(f"masks/cat_{k}.png", mask)
    Path("masks/notes.txt").write_text("by hand")
    Path("masks/classes.txt").write_text("animal")
    assert refine("masks") == 0
    shown, told = capsys.readouterr()
    assert not told and shown.splitlines() == [
        "masks/cat_1.png: 1 object (a mask); masks/cat_2.png: 1 object (a mask); masks/cat_3.png: 1 object (a mask): "
        "2 changed, 1 empty",
        "photos_sharp/cat_mask.png: 1 object without a pixel that is seen",
        "masks/dog.png: 1 object (a mask): 1 changed",
        "masks/dog_1.png: 1 object (a mask): 1 changed",
        "3 photographs refined; files are in photos_sharp",
        "1 file not used, called like no photograph: masks/notes.txt",
    ]
    for name, mask in (("dog", MASK), ("dog_1", MASK[::-1])):
        assert np.array_equal(cv2.imread(f"photos_sharp/{name}_mask.png", 0), np.roll(mask, 1, 1))
    assert refine("masks", out="photos_sharp") == 0
    assert "photos_sharp: dog_mask.png; replaced: dog_mask.png\n" in capsys.readouterr().out


def test_files_that_know_their_photographs(capsys: pytest.CaptureFixture[str]) -> None:
    """Several files of a data set, each with other photographs; one that is in none is counted."""
    for number, names in enumerate((("dog.jpg", "bird.jpg"), ("cat.jpg", "fish.jpg"))):
        images = [{"id": k, "file_name": name, "height": H, "width": W} for k, name in enumerate(names)]
        entry = {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [[15, 10, 40, 10, 40, 30, 15, 30]]}
        Path(f"{number}.json").write_text(json.dumps({"images": images, "annotations": [entry], "categories": []}))
    assert refine("0.json", "1.json", formats=("coco",)) == 0
    shown, told = capsys.readouterr()
    assert not told and "2 photographs refined" in shown and "1 photograph without masks: dog_1.jpg" in shown
    assert "1.json: 1 object (COCO annotations; 1 of 1 are of this photograph): 1 changed" in shown
    assert sorted(path.name for path in Path("photos_sharp").iterdir()) == ["cat.json", "dog.json"]
    Path("photos/dog.jpg").unlink()
    Path("photos/cat.jpg").unlink()
    assert refine("0.json") == 2 and "0 photographs refined\n" in capsys.readouterr().out


def test_what_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    picture("masks/dog.png", MASK[1:])
    picture("masks/dog_1.png", MASK)
    for ending in ("png", "bmp"):
        picture(f"masks/cat.{ending}", MASK)
    assert refine("masks") == 2
    shown, told = capsys.readouterr()
    assert "1 photograph refined" in shown and told.splitlines() == [
        "error: photos/cat.jpg: its masks are in files of several kinds, cat.bmp, cat.png; keep those of one kind "
        "in the folder",
        "error: masks/dog.png: the mask is 50 x 39 pixels, its image 50 x 40; correct one of them",
        "2 photographs failed: cat.jpg, dog.jpg",
    ]


def test_a_full_disk_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dog", "cat"):
        picture(f"masks/{name}.png", MASK)

    def full(*_: Any, **__: Any) -> None:
        raise UnwritableError("the disk is full")

    monkeypatch.setattr("sharpcontour.formats.output_files.write_whole", full)
    with pytest.raises(UnwritableError, match="full"):
        refine("masks")


def test_names_choose_the_photograph_with_most_of_them() -> None:
    paths = [Path(f"photos/{name}.jpg") for name in ("dog", "dog_1", "cat")]
    names = ["dog_1_mask.png", "dog-2.png", "dog.0.png", "dogs.png", "cat.json", "cat_1.json", ".cat.png"]
    for name in names:
        picture(f"masks/{name}", MASK) if name.endswith("png") else Path(f"masks/{name}").write_text("{}")
    found, unused = files_of(paths, [Path("masks")])
    assert {photo.stem: [file.name for file in files] for photo, files in found.items()} == {
        "dog": ["dog-2.png", "dog.0.png"],
        "dog_1": ["dog_1_mask.png"],
        "cat": ["cat.json"],
    }
    assert sorted(file.name for file in unused) == ["cat_1.json", "dogs.png"]


def test_mistakes_are_told() -> None:
    Path("empty").mkdir()
    with pytest.raises(
        InputError, match=r"empty: no file is called like a photograph in photos; masks of dog\.jpg are"
    ):
        refine("empty")
    with pytest.raises(InputError, match=r"none\.json: no such file or folder of masks"):
        refine("none.json")
    picture("photos/dog.png", MASK)
    with pytest.raises(InputError, match=r"photos: dog\.jpg and dog\.png are called alike"):
        refine("photos")
    with pytest.raises(InputError, match="empty: holds no image of a kind that is read"):
        refine_folder(Shifted, Path("empty"), [Path("photos")], formats=("png",))


def test_the_command_takes_folders(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    picture("masks/dog.png", MASK)
    monkeypatch.setattr("sharpcontour.anymask.refiner.load_refiner", lambda *_: Shifted())
    for more, code in (((), 0), (("--image-id", "3"), 2)):
        monkeypatch.setattr(sys, "argv", ["sharpcontour", "photos", "masks", "--format", "svg", *more])
        with pytest.raises(SystemExit) as left:
            command.main()
        assert (left.value.code or 0) == code
    shown, told = capsys.readouterr()
    assert "2 photographs without masks: cat.jpg, dog_1.jpg" in shown and Path("photos_sharp/dog.svg").is_file()
    assert told == "error: --image-id is of one photograph; leave it out for a folder\n"
