"""Cityscapes and LVIS by the commands that users type, on invented files in their formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data import DataConfig, build_dataset
from data.lvis import SYNSETS
from tests.commands import run_script
from tests.models.test_models import checkpoint_of


def cityscapes(root: Path) -> None:
    """Two training images and one to validate on, 64 x 128, with two cars, a rider and a group of persons."""
    values = np.full((64, 128), 7, np.uint16)
    values[10:30, 10:50], values[30:60, 60:100], values[5:25, 60:70] = 26_000, 26_001, 25_003
    values[40:60, 5:30], values[:4] = 24, 4
    image = np.where(values[..., None] >= 24_000, 200, 40).astype(np.uint8).repeat(3, 2)
    for split, count in (("train", 2), ("val", 1)):
        for kind, picture in (("gtFine", values), ("leftImg8bit", image)):
            folder = root / kind / split / "bonn"
            folder.mkdir(parents=True)
            for n in range(count):
                suffix = "gtFine_instanceIds" if kind == "gtFine" else "leftImg8bit"
                cv2.imwrite(str(folder / f"bonn_{n:06d}_000019_{suffix}.png"), picture)


def test_cityscapes_from_its_folders_to_its_score(tmp_path: Path) -> None:
    root = tmp_path / "cs"
    cityscapes(root)
    told = run_script("prepare_data.py", "cityscapes", cwd=tmp_path)
    assert told.returncode == 0 and "11 GB" in told.stdout and "account" in told.stdout
    early = run_script("prepare_data.py", "cityscapes", "--root", "cs", "--check", cwd=tmp_path)
    assert early.returncode == 2 and "prepare_data.py cityscapes says how to make it" in early.stderr
    made = run_script("prepare_data.py", "cityscapes", "--root", "cs", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "instances_val.json: 1 of Cityscapes' 500 images, 3 objects, 1 groups" in made.stdout
    checked = run_script("prepare_data.py", "cityscapes", "--root", "cs", "--check", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "2 images, 0 of them without objects" in checked.stdout and "car 4" in checked.stdout
    train = build_dataset(DataConfig(name="cityscapes", root=str(root), short_sides=(64,), flip=0.0), "train")
    sample = train[0, 0]
    assert train.category_ids == [24, 25, 26, 27, 28, 31, 32, 33]
    assert sample["target"]["labels"].tolist() == [1, 2, 2]  # the group is no target
    assert sample["target"]["boxes"].tolist() == [[60, 5, 70, 25], [10, 10, 50, 30], [60, 30, 100, 60]]


def test_a_trained_model_is_scored_in_cityscapes_way(tmp_path: Path) -> None:
    root = tmp_path / "cs"
    cityscapes(root)
    assert run_script("prepare_data.py", "cityscapes", "--root", "cs", cwd=tmp_path).returncode == 0
    trained = run_script(
        *("train.py", "--model", "condinst", "--refine", "--data", "cityscapes", "--root", "cs", "--out", "run"),
        *("--recipe", "small", "--set", "train.iterations=1", "train.images_per_batch=1", "train.pictures=0"),
        *("data.workers=0", "data.short_sides=64", "data.test_short_side=64", "host.backbone.width=16"),
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    scored = run_script(
        *("evaluate.py", "--checkpoint", "run", "--metrics", "cityscapes", "segm", "--json", "out.json"), cwd=tmp_path
    )
    assert scored.returncode == 0, scored.stderr
    assert "Cityscapes" in scored.stdout and "mask AP" in scored.stdout
    assert set(json.loads((tmp_path / "out.json").read_text())["cityscapes"]) == {"AP", "AP50"}


def test_a_submission_is_scored_against_the_pixels(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    (tmp_path / "results").mkdir()
    values = cv2.imread(str(tmp_path / "gtFine/val/bonn/bonn_000000_000019_gtFine_instanceIds.png"), -1)
    lines = []
    for value, label in ((26_000, 26), (26_001, 26), (25_003, 25)):
        cv2.imwrite(str(tmp_path / f"results/{value}.png"), (values == value).astype(np.uint8))
        lines.append(f"{value}.png {label} 0.9")
    (tmp_path / "results/bonn_000000_000019.txt").write_text("\n".join(lines))
    done = run_script(
        *("evaluate.py", "--results", "results", "--annotations", "gtFine/val", "--metrics", "cityscapes"),
        *("--per-category", "--json", "out.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["cityscapes"] == {"AP": 100.0, "AP50": 100.0}
    assert found["per_category"]["cityscapes"]["car"] == 100 and found["per_category"]["cityscapes"]["bus"] is None


def lvis() -> dict[str, Any]:
    box = [[10.0, 10, 30, 10, 30, 30, 10, 30]]
    url = "http://images.cocodataset.org/val2017/000000000007.jpg"
    image = {"id": 7, "height": 48, "width": 64, "file_name": "COCO_val2014_000000000007.jpg", "coco_url": url}
    return {
        "images": [{**image, "neg_category_ids": [2], "not_exhaustive_category_ids": []}],
        "categories": [
            {"id": 1, "name": "television_set", "synset": SYNSETS[72], "frequency": "f"},
            {"id": 2, "name": "aardvark", "synset": "aardvark.n.01", "frequency": "r"},
        ],
        "annotations": [
            {"id": 5, "image_id": 7, "category_id": 1, "area": 400.0, "segmentation": box, "bbox": [10, 10, 20, 20]}
        ],
    }


def test_lvis_from_its_file_to_ap_star(tmp_path: Path) -> None:
    (tmp_path / "lvis.json").write_text(json.dumps(lvis()))
    assert "lvis_v0.5_val.json.zip" in run_script("prepare_data.py", "lvis", cwd=tmp_path).stdout
    made = run_script("prepare_data.py", "lvis", "--annotations", "lvis.json", "--out", "gt.json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "gt.json: 1 images, 1 annotations, 1 of COCO's 80 categories" in made.stdout
    entry = {"image_id": 7, "score": 0.9, "segmentation": lvis()["annotations"][0]["segmentation"]}
    results = [{**entry, "category_id": 72}, {**entry, "category_id": 1}]  # no person was annotated
    (tmp_path / "r.json").write_text(json.dumps(results))
    done = run_script(
        "evaluate.py", "--results", "r.json", "--annotations", "gt.json", "--metrics", "lvis", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "AP* (LVIS)" in done.stdout and "AP             100.0" in done.stdout
    assert "1 detections of the categories 1 are left out" in done.stderr and done.stderr.count("\n") == 1
    wrong = run_script(
        "evaluate.py", "--results", "r.json", "--annotations", "r.json", "--metrics", "lvis", cwd=tmp_path
    )
    assert wrong.returncode == 2 and "has no list 'images'" in wrong.stderr


def test_a_model_of_cocos_classes_is_scored_on_lvis(tmp_path: Path) -> None:
    categories = [{"id": 72, "name": "tv"}, {"id": 1, "name": "person"}]
    checkpoint_of(tmp_path / "model.pt", True, "condinst", categories=categories)
    (tmp_path / "coco/annotations").mkdir(parents=True)
    (tmp_path / "coco/val2017").mkdir()
    cv2.imwrite(str(tmp_path / "coco/val2017/000000000007.jpg"), np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "lvis.json").write_text(json.dumps(lvis()))
    target = "coco/annotations/lvis_val.json"
    assert (
        run_script("prepare_data.py", "lvis", "--annotations", "lvis.json", "--out", target, cwd=tmp_path).returncode
        == 0
    )
    done = run_script(
        *("evaluate.py", "--checkpoint", "model.pt", "--data", "lvis", "--root", "coco", "--metrics", "lvis"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "1 images" in done.stdout and "AP* (LVIS)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lvis", "--annotations", "gt.json"], "--out FILE"),
        (["lvis", "--annotations", "none.json", "--out", "o.json"], "none.json: no such file"),
        (["cityscapes", "--root", "nowhere"], "no */*_gtFine_instanceIds.png in it"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    failed = run_script("prepare_data.py", *arguments, cwd=tmp_path)
    assert failed.returncode == 2 and message in failed.stderr and failed.stderr.count("\n") == 1
