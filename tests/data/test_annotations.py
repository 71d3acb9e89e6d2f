"""Annotations as tools export them: what is understood, and why nothing is left to train on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.coco import CocoDataset
from sharpcontour.errors import InputError
from tests.data.helpers import annotation, write_set


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([{"iscrowd": 1}, {"iscrowd": True}], "2 x crowd region, not trained on .set iscrowd to 0"),
        ([{"ignore": 1}, {"iscrowd": 1}], "1 x crowd region.*; 1 x annotation marked to be ignored"),
        ([{"category_id": 77}, {"image_id": "b"}], "1 x .* unknown category.*annotation 1.*; 1 x .* unknown image"),
        ([{"bbox": [900, 900, 5, 5]}], "1 x box empty or outside the image"),
        ([], "its list of annotations is empty"),
    ],
)
def test_nothing_to_train_on_says_why(tmp_path: Path, changes: list[dict[str, Any]], reason: str) -> None:
    annotations = [annotation(number, **change) for number, change in enumerate(changes, 1)]
    with pytest.raises(InputError, match=f"annotations.json: no object to train on: .*{reason}") as error:
        CocoDataset(write_set(tmp_path, annotations), "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("write", [str, float, lambda number: f"{number}.0"])
@pytest.mark.parametrize("keys", [("image_id",), ("category_id",), ("id", "image_id", "category_id", "iscrowd")])
def test_numbers_as_tools_write_them(tmp_path: Path, write: Callable[[int], Any], keys: tuple[str, ...]) -> None:
    plain = [annotation(number) for number in (1, 2)]
    wanted = CocoDataset(write_set(tmp_path, plain), "val").ground_truth()
    annotations = [one | {key: write(one[key]) for key in keys} for one in plain]
    config = write_set(tmp_path, annotations)
    data = CocoDataset(config, "train")
    assert len(data[0, 0]["target"]["labels"]) == 2
    assert "2 x whole number written as text or with a decimal point, understood" in (data.report() or "")
    assert CocoDataset(config, "val").ground_truth() == wanted
    contents = json.loads(Path(config.train_json).read_text()) | {"annotations": plain}
    contents["images"] = [one | {key: write(one[key]) for key in ("id", "width", "height")} for one in wanted["images"]]
    contents["categories"] = [one | {"id": write(one["id"])} for one in contents["categories"]]
    Path(config.train_json).write_text(json.dumps(contents))
    assert CocoDataset(config, "val").ground_truth() == wanted


@pytest.mark.parametrize("value", ["one", "1.5", 1.5, "", "1e3", True, [1], 10**30, float("nan"), "٣"])
def test_what_is_no_whole_number_names_no_image(tmp_path: Path, value: Any) -> None:
    data = CocoDataset(write_set(tmp_path, [annotation(1), annotation(2, image_id=value)]), "train")
    assert "1 x annotation of an unknown image, dropped (first: annotation 2)" in (data.report() or "")


def test_flags_as_tools_write_them(tmp_path: Path) -> None:
    """A text that says 0 is no crowd."""
    annotations = [annotation(1, iscrowd="0", ignore="0"), annotation(2, iscrowd="no"), annotation(3, ignore=False)]
    data = CocoDataset(write_set(tmp_path, annotations), "train")
    assert len(data[0, 0]["target"]["labels"]) == 3
    assert "1 x iscrowd that is no number, taken as 0 (first: annotation 2)" in (data.report() or "")


def test_masks_of_cvat_are_objects_and_no_crowds(tmp_path: Path) -> None:
    ours = {"attributes": {"occluded": False}}
    annotations = [annotation(1, **ours), annotation(2, iscrowd=1, **ours), annotation(3, iscrowd=1)]
    data = CocoDataset(write_set(tmp_path, annotations), "train")
    assert len(data[0, 0]["target"]["labels"]) == 2
    assert "1 x mask of CVAT, which writes iscrowd 1 for all masks, taken as an object (first: annotation 2)" in (
        data.report() or ""
    )
    assert [one["iscrowd"] for one in data.ground_truth()["annotations"]] == [0, 0, 1]


def test_a_box_of_no_size_is_taken_from_the_segmentation(tmp_path: Path) -> None:
    wanted = annotation(1)["bbox"]
    data = CocoDataset(write_set(tmp_path, [annotation(1, bbox=[0, 0, 0, 0]), annotation(2)]), "train")
    assert len(data[0, 0]["target"]["labels"]) == 2 and data.ground_truth()["annotations"][0]["bbox"] == wanted
    assert "1 x box without width or height, taken from the segmentation (first: annotation 1)" in (data.report() or "")


def test_run_lengths_whose_sum_is_right_in_64_bits_only_are_dropped(tmp_path: Path) -> None:
    config = write_set(tmp_path, [annotation(1), annotation(2)])
    contents = json.loads(Path(config.train_json).read_text())
    height, width = (contents["images"][0][key] for key in ("height", "width"))
    contents["annotations"][1]["segmentation"] = {"size": [height, width], "counts": [2**62] * 4 + [height * width]}
    Path(config.train_json).write_text(json.dumps(contents))
    assert "do not add up to the image's pixels, annotation dropped" in (CocoDataset(config, "train").report() or "")
