"""COCO-format sets: what is read, what is mended, what is dropped, and what each mistake says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from data import DataConfig, build_dataset
from data.coco import CocoDataset
from sharpcontour.errors import InputError
from sharpcontour.io.images import read_image
from tests.data.helpers import SQUARE, annotation, image_entry, runs, write_set
from tests.sharpcontour.helpers import huge_png, not_utf8

TINY = Path(__file__).resolve().parents[3] / "shared" / "data" / "coco-tiny"


def target_of(config: DataConfig, index: int = 0) -> dict[str, Any]:
    return CocoDataset(config, "train")[0, index]["target"]


def test_category_ids_make_the_round_trip(tmp_path: Path) -> None:
    annotations = [annotation(k + 1, category_id=c) for k, c in enumerate((2, 9, 90))]
    data = CocoDataset(write_set(tmp_path, annotations), "train")
    assert data.category_ids == [2, 9, 90] and [c["name"] for c in data.categories] == ["two", "nine", "ninety"]
    labels = data[0, 0]["target"]["labels"]
    assert labels.tolist() == [0, 1, 2] and [data.category_ids[label] for label in labels] == [2, 9, 90]


def test_target_at_another_size(tmp_path: Path) -> None:
    config = write_set(tmp_path, [annotation(1)], short_sides=(96,))
    sample = CocoDataset(config, "train")[0, 0]
    target = sample["target"]
    assert (
        sample["image"].shape == (3, 96, 128) and sample["image"].dtype == torch.uint8 and target["size"] == (96, 128)
    )
    np.testing.assert_array_equal(target["boxes"], [[20, 16, 60, 56]])
    assert target["masks"].dense(96, 128)[0, 16:56, 20:60].all() and target["masks"].pixels.sum() == 1600
    np.testing.assert_array_equal(target["rings"][0][0], np.array(SQUARE).reshape(-1, 2) * 2)
    evaluation = CocoDataset(config, "val")[-1, 0]["target"]
    assert evaluation == {"image_id": 1, "size": (48, 64), "original_size": (48, 64)}


def test_box_comes_from_the_annotation(tmp_path: Path) -> None:
    target = target_of(write_set(tmp_path, [annotation(1, bbox=[-4, 7, 50, 10])]))
    np.testing.assert_array_equal(target["boxes"], [[0, 7, 46, 17]])


def test_flip(tmp_path: Path) -> None:
    target = target_of(write_set(tmp_path, [annotation(1)], flip=1.0))
    np.testing.assert_array_equal(target["boxes"], [[34, 8, 54, 28]])
    assert target["masks"].dense(48, 64)[0, 8:28, 34:54].all() and target["masks"].pixels.sum() == 400


@pytest.mark.parametrize(
    "more", [{"flip": 1.0}, {"flip": 1.0, "short_sides": (96,)}, {"object_crop": 64, "flip": 0.5}], ids=str
)
def test_pixels_and_objects_go_together(tmp_path: Path, more: dict[str, Any]) -> None:
    config = write_set(tmp_path, [annotation(1)], **more)
    picture = np.full((48, 64, 3), 40, np.uint8)
    picture[8:28, 10:30] = 200
    cv2.imwrite(str(tmp_path / "1.png"), picture)
    data = CocoDataset(config, "train")
    for epoch in range(8):
        sample = data[epoch, 0]
        target = sample["target"]
        mask = target["masks"].dense(*target["size"])[0].bool()
        assert mask.any() and ((sample["image"][1] > 120) == mask).float().mean() > 0.97


def test_all_forms_of_a_mask_agree(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), np.uint8, order="F")
    mask[8:28, 10:30] = 1
    mask[14:20, 15:22] = 0
    packed = coco_mask.encode(mask)
    compressed = {"size": [48, 64], "counts": packed["counts"].decode()}
    plain = {"size": [48, 64], "counts": runs(mask)}
    both = [SQUARE, [40.0, 30, 50, 30, 50, 40, 40, 40]]
    annotations = [annotation(k + 1, segmentation=s) for k, s in enumerate((compressed, plain, both))]
    target = target_of(write_set(tmp_path, annotations))
    dense = target["masks"].dense(48, 64).numpy()
    np.testing.assert_array_equal(dense[0], mask)
    np.testing.assert_array_equal(dense[1], mask)
    assert dense[2].sum() == 500
    assert [len(rings) for rings in target["rings"]] == [2, 2, 2]  # outline and hole; two parts
    assert target["polygon_parts"].tolist() == [1, 1, 2]


def test_crowds_and_empty_images(tmp_path: Path) -> None:
    crowd = annotation(2, 2, iscrowd=1, segmentation={"size": [48, 64], "counts": [48 * 10, 48, 48 * 53]})
    images = [image_entry(k) for k in (1, 2, 3)]
    config = write_set(tmp_path, [annotation(1), crowd], images, keep_empty=False)
    train, val = CocoDataset(config, "train"), CocoDataset(config, "val")
    assert train.image_ids.tolist() == [1] and val.image_ids.tolist() == [1, 2, 3]
    assert [a["iscrowd"] for a in val.ground_truth()["annotations"]] == [0, 1]
    assert len(train.ground_truth()["annotations"]) == 1
    config.keep_empty = True
    kept = CocoDataset(config, "train")
    assert len(kept) == 3 and train.report() is None
    for index in (1, 2):
        target = kept[0, index]["target"]
        assert (
            target["boxes"].shape == (0, 4) and target["labels"].shape == (0,) and target["labels"].dtype == torch.int64
        )
        assert len(target["masks"]) == 0 and target["rings"] == [] and target["polygon_parts"].shape == (0,)


NAN = float("nan")
EMPTY = {"size": [48, 64], "counts": [48 * 64]}
# Changes of an annotation, words of the report, and whether it remains in training and in the ground truth.
BROKEN: list[tuple[dict[str, Any], str, bool, bool]] = [
    ({"segmentation": [[1, 2, 3, 4]]}, "no polygon of three", False, False),
    ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "no polygon of three", False, False),
    ({"segmentation": [[1, 2, NAN, 4, 5, 6]]}, "no polygon of three", False, False),
    ({"segmentation": [[1, 2, None, 4, 5, 6]]}, "no polygon of three", False, False),
    ({"segmentation": []}, "no polygon of three", False, False),
    ({"segmentation": [[1, 2, 3, 4], SQUARE]}, "left out", True, True),
    ({"segmentation": [[5, 5, 25, 5, 700, 25]], "area": None}, "within 10 image sizes", False, False),
    ({"segmentation": [[5, 5, 25, 5, -1e12, 25], SQUARE], "area": None}, "10 image sizes away, left out", True, True),
    ({"segmentation": None}, "segmentation missing", False, False),
    ({"segmentation": SQUARE}, "understood", True, True),
    ({"segmentation": [[10, 8], [30.0, 8], [30, 28], [10, 28]]}, "understood", True, True),
    ({"segmentation": [[[10, 8], [30, 8], [30, 28], [10, 28]], SQUARE]}, "understood", True, True),
    ({"segmentation": [[1, 2], [3, 4]]}, "no polygon of three", False, False),
    ({"segmentation": [[5, 5, 10, 10, 20, 20]]}, "without an area", False, True),
    ({"segmentation": [[5, 5, 25, 25, 25, 5, 5, 25]]}, "", True, True),  # crosses itself: even-odd, as pycocotools
    ({"segmentation": EMPTY}, "empty run lengths", False, False),
    ({"segmentation": {"size": [64, 48], "counts": [48 * 10, 48, 48 * 53]}}, "another size", False, False),
    ({"segmentation": {"size": [48, 64], "counts": [5, 5]}}, "add up", False, False),
    ({"segmentation": {"size": [48, 64], "counts": [-5, 5, 48 * 64]}}, "add up", False, False),
    ({"segmentation": {"size": [48, 64], "counts": "zz"}}, "add up", False, False),
    ({"segmentation": {"size": [48, 64], "counts": "\u20ac"}}, "cannot be read", False, False),
    ({"segmentation": {"size": [48, 64], "counts": [[1], [2, 3]]}}, "cannot be read", False, False),
    ({"segmentation": {"size": [48, 64]}}, "run lengths", False, False),
    ({"category_id": 5}, "unknown category", False, False),
    ({"image_id": 77}, "unknown image", False, False),
    ({"bbox": [1, 2, NAN, 4]}, "taken from the segmentation", True, True),
    ({"bbox": None}, "taken from the segmentation", True, True),
    ({"area": None}, "taken from the segmentation", True, True),
    ({"bbox": [100, 100, 20, 20]}, "outside the image", False, True),
    ({"bbox": [10, 10, 0, 20]}, "without width or height, taken from the segmentation", True, True),
    ({"id": 1}, "new one", True, True),
    ({"id": 0}, "new one", True, True),
    ({"id": None}, "new one", True, True),
    ({"ignore": 1}, "", False, True),
]


@pytest.mark.parametrize(("changes", "words", "trains", "counts"), BROKEN)
def test_broken_annotations(tmp_path: Path, changes: dict[str, Any], words: str, trains: bool, counts: bool) -> None:
    config = write_set(tmp_path, [annotation(1), annotation(2, **changes)])
    data = CocoDataset(config, "train")
    assert len(data[0, 0]["target"]["labels"]) == 1 + trains
    report = data.report()
    assert (report is None) == (words == "") and words in (report or "") and "\n" not in (report or "")
    coco = COCO()
    coco.dataset = CocoDataset(config, "val").ground_truth()
    coco.createIndex()
    assert len(coco.anns) == len(coco.dataset["annotations"]) == 1 + counts and min(coco.anns) > 0
    for one in coco.anns.values():  # what is left must not trip the evaluation
        assert coco.annToMask(one).shape == (48, 64) and np.isfinite(one["area"]) and np.isfinite(one["bbox"]).all()


def test_report_counts_by_kind(tmp_path: Path) -> None:
    annotations = [annotation(1), annotation(2, category_id=5), annotation(3, category_id=6), annotation(4, image_id=5)]
    report = CocoDataset(write_set(tmp_path, annotations), "train").report()
    assert report is not None and "2 x annotation of an unknown category" in report and "annotation 2" in report


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"images": [}', "line 1 column 13"),
        ('{"images":\n [1, 2', "line 2"),
        ("[]", "COCO's form"),
        ('{"images": [], "annotations": []}', "'categories'"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "images is empty"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1}]}', "image 1 has no file_name"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}, {"id": 1}]}', "category id 1"),
    ],
)
def test_broken_annotation_files(tmp_path: Path, text: str, words: str) -> None:
    config = write_set(tmp_path, [annotation(1)])
    Path(config.train_json).write_text(text)
    with pytest.raises(InputError, match=words) as error:
        CocoDataset(config, "train")
    assert "annotations.json" in str(error.value) and "\n" not in str(error.value)


def test_missing_paths(tmp_path: Path) -> None:
    config = write_set(tmp_path, [annotation(1)])
    config.train_json += "x"
    with pytest.raises(InputError, match="no such annotation file"):
        CocoDataset(config, "train")
    config.val_images += "x"
    with pytest.raises(InputError, match="no such folder"):
        CocoDataset(config, "val")
    with pytest.raises(InputError, match="--root"):
        build_dataset(DataConfig(name="coco"), "val")


def test_image_twice_and_order_by_id(tmp_path: Path) -> None:
    images = [image_entry(k) for k in (5, 3, 5)]
    data = CocoDataset(write_set(tmp_path, [annotation(1, 5)], images), "train")
    assert data.image_ids.tolist() == [3, 5] and "image id that is there twice" in (data.report() or "")
    assert len(data[0, 1]["target"]["labels"]) == 1 and len(data[0, 0]["target"]["labels"]) == 0


def spoil(folder: Path) -> None:
    """Images 2 to 5: missing, empty, a web page, cut short."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    whole = cv2.imencode(".jpg", noise)[1].tobytes()
    (folder / "2.png").unlink()
    (folder / "3.png").write_bytes(b"")
    (folder / "4.png").write_text("<html><body>404</body></html>")
    (folder / "5.png").write_bytes(whole[: len(whole) // 2])


def test_unreadable_images(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = [image_entry(k) for k in range(1, 8)]
    annotations = [annotation(k, k) for k in range(1, 8)]
    config = write_set(tmp_path, annotations, images, max_unreadable=0.6)
    spoil(tmp_path)
    data = CocoDataset(config, "train")
    assert [data[0, i]["target"]["image_id"] for i in range(7)] == [1, 6, 6, 6, 6, 6, 7]
    assert "4 unreadable" in (data.report() or "")
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [f"{k}.png" in told[k - 2] for k in range(2, 6)] == [True] * 4 and "another image in its place" in told[0]
    val = CocoDataset(config, "val")
    for index, word in ((1, "no such image"), (2, "is empty"), (3, "is no image"), (4, "cut short")):
        with pytest.raises(InputError, match=word) as error:
            val[-1, index]
        assert f"{index + 1}.png" in str(error.value)
    capfd.readouterr()  # libpng and libjpeg complain on their own


def test_too_many_unreadable_images(tmp_path: Path) -> None:
    images = [image_entry(k) for k in range(1, 8)]
    config = write_set(tmp_path, [annotation(1)], images, max_unreadable=0.3)
    data = CocoDataset(config, "train")
    spoil(tmp_path)
    with pytest.raises(InputError) as error:
        for index in range(7):
            data[0, index]
    message = str(error.value)
    assert all(f"{k}.png" in message for k in (2, 3, 4)) and "2 allowed" in message and "\n" not in message


def test_replacement_keeps_the_orientation(tmp_path: Path) -> None:
    images = [image_entry(1, 64, 48), image_entry(2, 48, 64), image_entry(3, 64, 48)]
    data = CocoDataset(write_set(tmp_path, [annotation(1)], images), "train")
    (tmp_path / "1.png").unlink()
    assert data[0, 0]["target"]["image_id"] == 3


def test_wrong_size_names_both(tmp_path: Path) -> None:
    config = write_set(tmp_path, [annotation(1)])
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(InputError, match=r"48 x 64 pixels.*64 x 48"):
        CocoDataset(config, "val")[-1, 0]


def test_kinds_of_images(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    for array in (
        np.full((5, 4), 200, np.uint8),
        np.full((5, 4, 4), 200, np.uint8),
        np.full((5, 4), 200 * 257, np.uint16),
        np.full((1, 1, 3), 200, np.uint8),
        np.full((3, 12000, 3), 200, np.uint8),
    ):
        cv2.imwrite(str(path), array)
        image = read_image(path)
        assert image.shape == (*array.shape[:2], 3) and image.dtype == np.uint8 and abs(int(image[0, 0, 0]) - 200) <= 1
    blue = np.zeros((2, 2, 3), np.uint8)
    blue[..., 0] = 255
    cv2.imwrite(str(path), blue)
    assert read_image(path)[0, 0].tolist() == [0, 0, 255]


def test_an_image_of_another_size_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_set(tmp_path, [annotation(1)])
    data = CocoDataset(config, "train")
    data.path(0).write_bytes(huge_png())
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"has 20000 x 20000 pixels, its entry \(image 1\) says \d+ x \d+; correct"):
        data.read_image(0)


def test_names_of_images_that_are_no_text(tmp_path: Path) -> None:
    config = write_set(tmp_path, [annotation(1)])
    data = json.loads(Path(config.train_json).read_text())
    path = not_utf8(Path(config.train_images))
    (Path(config.train_images) / data["images"][0]["file_name"]).replace(path)
    data["images"][0]["file_name"] = path.name
    Path(config.train_json).write_text(json.dumps(data))
    assert CocoDataset(config, "train").read_image(0).ndim == 3


def test_exif_rotation_is_ignored(tmp_path: Path) -> None:
    """Orientation 6 (a quarter turn) in a hand-made APP1 segment: the pixels stay as they are stored."""
    data = cv2.imencode(".jpg", np.zeros((10, 20, 3), np.uint8))[1].tobytes()
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01" + b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00" + b"\x00" * 4
    exif = b"Exif\x00\x00" + tiff
    path = tmp_path / "rotated.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    assert cv2.imread(str(path)).shape == (20, 10, 3)  # OpenCV on its own would turn it
    assert read_image(path).shape == (10, 20, 3)


def test_at_test_size_images_are_those_of_evaluation(tmp_path: Path) -> None:
    other = {"colour": 1.0, "object_crop": 32, "flip": 1.0, "short_sides": (96,), "test_short_side": 64}
    config = write_set(tmp_path, [annotation(1, 100)], [image_entry(100)], **other)
    data = CocoDataset(config.at_test_size(), "val")
    assert torch.equal(data[0, 0]["image"], data[-1, 0]["image"])
    assert data[0, 0]["target"]["boxes"].shape == (1, 4)


def test_workers_share_arrays_not_objects(tmp_path: Path) -> None:
    """What grows with the number of annotations must be arrays: Python objects are copied into every worker."""
    data = CocoDataset(write_set(tmp_path, [annotation(k) for k in range(1, 500)]), "train")
    held = [value for value in vars(data).values() if isinstance(value, (list, dict, tuple))]
    assert max(len(value) for value in held) <= len(data.categories)
    arrays = [value for name, value in vars(data.objects).items() if name != "file"]
    assert all(isinstance(value, np.ndarray) for value in arrays)


@pytest.mark.skipif(not TINY.is_dir(), reason="needs the small COCO sample")
@pytest.mark.parametrize(("split", "annotations", "crowds"), [("train", 705, 6), ("val", 815, 11)])
def test_real_coco(split: str, annotations: int, crowds: int) -> None:
    data = CocoDataset(DataConfig(name="coco", root=str(TINY)), split)
    truth = data.ground_truth()
    assert len(data) == 80 and len(data.categories) == 80 and data.category_ids[11] == 13
    assert data.report() is None and len(truth["annotations"]) == annotations
    assert len(data.objects.labels) == annotations - crowds
    assert truth["annotations"] == json.loads(data.json_path.read_bytes())["annotations"]
    for index in range(0, 80, 16):
        sample = data[0, index]
        target = sample["target"]
        height, width = target["size"]
        assert sample["image"].shape == (3, height, width) and max(height, width) <= 1333
        assert 640 <= min(height, width) <= 800 or max(height, width) == 1333
        boxes = target["boxes"]
        assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
        x0, y0, w, h = target["masks"].crops.float().unbind(1)
        inside = torch.stack([x0, y0, x0 + w, y0 + h], 1) - boxes
        assert inside.abs().max() < 6  # COCO's own boxes and polygons differ by rounding
