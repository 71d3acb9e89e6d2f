"""Boxes that disagree with their segmentation are counted, with the likely reason, and nothing else is."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from data.agreement import XYWH, disagreement
from data.annotations import read_coco, segmentation_box
from data.coco import CocoDataset
from data.coco_split import CocoSplit
from tests.data.helpers import annotation, image_entry, write_set

SHARED = Path(__file__).resolve().parents[3] / "shared"
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
H, W = 48, 64
OBJECT: XYWH = (10, 30, 20, 15)
POLYGON = [10, 30, 30, 30, 30, 45, 10, 45]
WRITTEN: dict[str, XYWH] = {
    "x0, y0, x1, y1": (10, 30, 30, 45),
    "centre, width, height": (20, 37.5, 20, 15),
    "y, x, height, width": (30, 10, 15, 20),
    "in shares of the image": (10 / W, 30 / H, 20 / W, 15 / H),
    "of the image turned left": (W * (1 - 45 / H), H * 10 / W, W * 15 / H, H * 20 / W),
    "of the image turned right": (W * 30 / H, H * (1 - 30 / W), W * 15 / H, H * 20 / W),
}


@pytest.mark.parametrize("reading", WRITTEN)
def test_the_likely_reason_is_told(reading: str, tmp_path: Path) -> None:
    annotations = [annotation(1, segmentation=[POLYGON], bbox=list(WRITTEN[reading])), annotation(2)]
    data = CocoDataset(write_set(tmp_path, annotations), "train")
    wanted = f"1 x box that disagrees with its segmentation, it may be {reading} (first: annotation 1)"
    assert wanted in (data.report() or "")
    kept = data.ground_truth()["annotations"][0]["bbox"]
    assert kept == list(WRITTEN[reading])  # a guess changes nothing


def test_a_box_somewhere_else_is_told_without_a_reason() -> None:
    assert disagreement((40, 2, 20, 10), OBJECT, H, W) == "box that disagrees with its segmentation"


@pytest.mark.parametrize(
    ("box", "extent"),
    [
        (OBJECT, OBJECT),
        ((10, 30, 22, 17), OBJECT),  # drawn generously
        ((8, 28, 26, 18), OBJECT),
        ((50, 40, 14, 8), (50.0, 40.0, 500.0, 300.0)),  # the polygon leaves the image, the box does not
        ((5, 5, 1, 1), (6.0, 6.5, 0.5, 0.5)),  # tiny
        ((0, 0, 30, 20), (0.0, 0.0, 30.0, 20.0)),  # x0, y0, x1, y1 are the same there
    ],
)
def test_what_agrees_is_not_told(box: XYWH, extent: XYWH) -> None:
    assert disagreement(box, extent, H, W) == ""


def test_polygons_in_units_of_0_to_1_are_told(tmp_path: Path) -> None:
    polygon = (np.array(POLYGON).reshape(-1, 2) / (W, H)).ravel().tolist()
    corner = [0, 0, 3, 0, 3, 2]  # pixels
    annotations = [
        annotation(1, segmentation=[polygon], bbox=list(OBJECT)),
        annotation(2, segmentation=[polygon], bbox=[10 / W, 30 / H, 20 / W, 15 / H]),
        annotation(3, segmentation=[corner], bbox=[0, 0, 3, 2]),
    ]
    data = CocoDataset(write_set(tmp_path, annotations), "val")
    assert "2 x segmentation within a pixel of the upper left corner, its coordinates may be in units of 0 to 1 " in (
        data.report() or ""
    )
    assert "3 x" not in (data.report() or "")
    whole = annotation(1, segmentation=[[0, 0, 1, 0, 1, 1, 0, 1]], bbox=[0, 0, 1, 1])
    assert CocoDataset(write_set(tmp_path, [whole], [image_entry(1, 1, 1)]), "val").report() is None


def test_the_check_of_a_data_set_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    check_split = importlib.import_module("prepare_data").check_split
    annotations = [annotation(k, segmentation=[POLYGON], bbox=[10, 30, 30, 45]) for k in (1, 2)]
    assert check_split(CocoSplit(write_set(tmp_path, annotations), "train")) == []
    assert "annotations: 2 x box that disagrees with its segmentation, it may be x0, y0, x1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("data/photos/train.json", 0),
        ("data/photos/val.json", 0),
        ("evalgt/coco287_gt.json.gz", 0),
        ("evalgt/lvis_v05_val100_gt.json.gz", 13),  # of two images, whose boxes are those of the image turned
    ],
)
def test_real_annotations(name: str, count: int) -> None:
    if not (SHARED / name).is_file():
        pytest.skip("these annotations are not here")
    found = read_coco(SHARED / name)
    told = {kind: number for kind, number in found.problems.counts.items() if "disagrees" in kind or "units" in kind}
    assert sum(told.values()) == count and all("turned" in kind for kind in told)


def test_the_box_around_a_segmentation() -> None:
    assert segmentation_box([[3, 4, 9, 4.5, 5, 8]]) == (3, 4, 6, 4)
    assert segmentation_box([[3, 4, 9, 4, 5, 8], [-1, 5, 2, 5, 2, 6.5]]) == (-1, 4, 10, 4)
    assert segmentation_box({"size": [4, 5], "counts": [5, 2, 2, 2, 9]}) == (1, 1, 2, 2)
