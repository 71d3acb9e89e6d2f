"""Cityscapes' AP against cityscapesScripts itself, on invented scenes in its format."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data.cityscapes import CLASSES, convert
from eval.checks import GroundTruth, check_detections
from eval.cityscapes import evaluate_cityscapes, read_submission
from sharpcontour.errors import InputError

H, W = 120, 200


def scene(rng: np.random.Generator) -> np.ndarray:
    """Instance ids: road, void, caravans, objects of all sizes, groups, one of 100 pixels and one of 99."""
    values = np.full((H, W), 7, np.uint16)
    values[: H // 4] = rng.choice([0, 4, 23])
    for n in range(int(rng.integers(4, 16))):
        label = int(rng.choice([24, 25, 26, 27, 28, 29, 30, 31, 32, 33]))
        value = label if rng.random() < 0.2 else label * 1000 + n
        centre = int(rng.integers(0, W)), int(rng.integers(0, H))
        axes = int(rng.integers(2, 30)), int(rng.integers(2, 25))
        mask = cv2.ellipse(np.zeros((H, W), np.uint8), centre, axes, float(rng.integers(0, 180)), 0, 360, 1, -1)
        values[mask > 0] = value
    values[:10, :10] = 26_100
    values[:10, 20:30] = 26_101
    values[9, 29] = 7
    values[20:25, :10] = 33  # a small group
    return values


def write(root: Path, seed: int, images: int = 8) -> None:
    """Ground truth and a submission, with ties, duplicates, empty masks and other classes."""
    rng = np.random.default_rng(seed)
    (root / "gtFine/val/bonn").mkdir(parents=True)
    (root / "results/masks").mkdir(parents=True)
    for n in range(images):
        stem = f"bonn_{n:06d}_000019"
        values = scene(rng)
        cv2.imwrite(str(root / f"gtFine/val/bonn/{stem}_gtFine_instanceIds.png"), values)
        lines = []
        for value in np.unique(values):
            label = int(value // 1000 if value >= 1000 else value)
            if value < 24 or rng.random() < 0.1:
                continue
            for _ in range(int(rng.choice([1, 1, 2, 3]))):
                moved = np.roll(values == value, rng.integers(-3, 4, 2), (0, 1))
                label = 26 if label in (29, 30) else label
                lines.append((moved, label if rng.random() < 0.9 else 24))
        lines += [(scene(rng) >= 24_000, 26), (np.zeros((H, W), bool), 24), (np.ones((H, W), bool), 11)]
        lines.append(((values == 0) | (values == 4), 25))
        for _ in range(6):
            mask = np.zeros((H, W), bool)
            y, x = rng.integers(0, H - 20), rng.integers(0, W - 20)
            mask[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = True
            lines.append((mask, int(rng.choice(list(CLASSES)))))
        text = []
        for k, (mask, label) in enumerate(lines if n else []):  # nothing was found on the first image
            cv2.imwrite(str(root / f"results/masks/{stem}_{k}.png"), mask.astype(np.uint8) * (255 if k % 2 else 1))
            text.append(f"masks/{stem}_{k}.png {label} {rng.choice([0.5, 0.9, round(rng.random(), 6)])}\n")
        (root / f"results/{stem}_pred.txt").write_text("".join(text))


def reference(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    import cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling as tool

    args = copy.copy(tool.args)
    args.predictionPath, args.predictionWalk = str((root / "results").resolve()), None
    args.gtInstancesFile, args.exportFile = str(root / "cache.json"), str(root / "out.json")
    args.JSONOutput, args.quiet, args.instLabels = False, True, []
    truths = sorted(str(path) for path in root.glob("gtFine/val/*/*_instanceIds.png"))
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # the tool is older than numpy 2.4
    monkeypatch.setattr(tool, "writeDict2JSON", lambda *_: None)  # it writes its matches into the current folder
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        return tool.evaluateImgLists([tool.getPrediction(path, args) for path in truths], truths, args)["averages"]


def scored(root: Path) -> Any:
    truth = GroundTruth(convert(root / "gtFine/val"), "gtFine")
    return evaluate_cityscapes(truth, check_detections(read_submission(root / "results", truth), truth, "results"))


@pytest.mark.parametrize("seed", range(3))
def test_every_rule_as_the_official_tool_has_it(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, seed)
    wanted, found = reference(tmp_path, monkeypatch), scored(tmp_path)
    assert found.summary["AP"] == pytest.approx(100 * wanted["allAp"], abs=1e-10)
    assert found.summary["AP50"] == pytest.approx(100 * wanted["allAp50%"], abs=1e-10)
    assert 5 < found.summary["AP"] < 95
    for name, value in found.per_category.items():
        theirs = wanted["classes"][name]["ap"]
        assert (value is None) == math.isnan(theirs) and (value is None or abs(value - 100 * theirs) < 1e-10), name


def test_classes_without_objects_or_without_detections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 3)
    for path in tmp_path.glob("gtFine/val/*/*.png"):
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        values[values // 1000 == 28] = 7
        cv2.imwrite(str(path), values)
    for path in (tmp_path / "results").glob("*.txt"):
        path.write_text("".join(line for line in path.read_text().splitlines(True) if " 26 " not in line))
    wanted, found = reference(tmp_path, monkeypatch), scored(tmp_path)
    assert found.per_category["bus"] is None and found.per_category["car"] == 0
    assert found.summary["AP"] == pytest.approx(100 * wanted["allAp"], abs=1e-10)


def test_nothing_found_and_nothing_to_find(tmp_path: Path) -> None:
    write(tmp_path, 0, images=2)
    truth = GroundTruth(convert(tmp_path / "gtFine/val"))
    assert evaluate_cityscapes(truth, []).summary == {"AP": 0.0, "AP50": 0.0}
    data = convert(tmp_path / "gtFine/val")
    empty = GroundTruth(data | {"annotations": []})
    assert evaluate_cityscapes(empty, []).summary == {"AP": None, "AP50": None}
    del data["images"][0]["void"]
    with pytest.raises(InputError, match="image id 1 has no 'void'"):
        evaluate_cityscapes(GroundTruth(data), [])


def test_converted_annotations_are_the_pixels(tmp_path: Path) -> None:
    write(tmp_path, 1, images=2)
    data = convert(tmp_path / "gtFine/val")
    truth = GroundTruth(data)
    assert data["images"][0]["file_name"] == "bonn/bonn_000000_000019_leftImg8bit.png"
    path = tmp_path / "gtFine/val/bonn/bonn_000001_000019_gtFine_instanceIds.png"
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    mine = [one for one in truth.coco.dataset["annotations"] if one["image_id"] == 2]
    wanted = [v for v in np.unique(values).tolist() if (v // 1000 if v >= 1000 else v) in CLASSES]
    assert len(mine) == len(wanted)
    for one, value in zip(mine, wanted, strict=True):
        assert np.array_equal(coco_mask.decode(one["segmentation"]), (values == value).astype(np.uint8))
        assert one["iscrowd"] == (value < 1000) and one["area"] == (values == value).sum()
    assert json.dumps(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"0 files bonn_000001_000019\*.txt; every image needs one"),
        ("twice", r"2 files bonn_000001_000019\*.txt"),
        ("fields", "line 1 is not a mask file, a label id and a score: 'a.png 26'"),
        ("outside", r"line 1 names a mask outside .*: \.\./a.png"),
        ("gone", r"nowhere.png: no such mask; a text file names it"),
        ("size", r"the mask is 5 x 4 pixels, its image 200 x 120"),
    ],
)
def test_broken_submissions_are_told(change: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, 0, images=2)
    path = tmp_path / "results/bonn_000001_000019_pred.txt"
    cv2.imwrite(str(tmp_path / "results/small.png"), np.ones((4, 5), np.uint8))
    if change == "missing":
        path.unlink()
    elif change == "twice":
        (tmp_path / "results/masks/bonn_000001_000019.txt").write_text("")
    else:
        line = {"fields": "a.png 26", "outside": "../a.png 26 1", "gone": "nowhere.png 26 1", "size": "small.png 26 1"}
        path.write_text(line[change])
    truth = GroundTruth(convert(tmp_path / "gtFine/val"))
    with pytest.raises(InputError, match=message):
        read_submission(tmp_path / "results", truth)


def test_names_of_masks_that_are_no_text(tmp_path: Path) -> None:
    write(tmp_path, 0, images=2)
    path = tmp_path / "results/bonn_000001_000019_pred.txt"
    path.write_bytes(b"masque\xe9.png 26 1")
    truth = GroundTruth(convert(tmp_path / "gtFine/val"))
    with pytest.raises(InputError, match=r"masque\udce9\.png: no such mask"):
        read_submission(tmp_path / "results", truth)


def test_what_is_no_annotation_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \*/\*_gtFine_instanceIds.png in it"):
        convert(tmp_path)
    (tmp_path / "bonn").mkdir()
    (tmp_path / "bonn/bonn_000000_000019_gtFine_instanceIds.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="is no image of 16 bits and one channel"):
        convert(tmp_path)
