"""Images that cannot be read, in training and in the evaluation of a run."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.commands import SCRIPTS, run_script
from tests.engine.test_faults import TINY


def photographs(folder: Path, broken: int) -> list[str]:
    """Six images of one object, one of them broken, the first three for validation too: arguments of a training."""
    images, annotations = [], []
    for k in range(6):
        cv2.imwrite(str(folder / f"{k}.png"), np.full((64, 64, 3), 90, np.uint8))
        images.append({"id": k, "file_name": f"{k}.png", "width": 64, "height": 64})
        box = [[10, 10, 40, 10, 40, 40, 10, 40]]
        fields = {"id": k + 1, "image_id": k, "category_id": 1, "segmentation": box, "bbox": [10, 10, 30, 30]}
        annotations.append(fields | {"area": 900})
    (folder / f"{broken}.png").write_bytes(b"no image")
    text = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    (folder / "train.json").write_text(json.dumps(text))
    (folder / "val.json").write_text(json.dumps({**text, "images": images[:3], "annotations": annotations[:3]}))
    files = ["--train-json", "train.json", "--val-json", "val.json", "--train-images", ".", "--val-images", "."]
    small = [item for item in TINY if "count" not in item and "shapes" not in item]
    more = ["train.iterations=3", "train.log_period=1", "data.short_sides=64", "data.test_short_side=64"]
    return ["--model", "dance", "--recipe", "small", "--out", "run", *files, "--set", *small, *more, "train.pictures=2"]


def test_images_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    """In training they are replaced by others, in the evaluation their objects count as missed."""
    done = run_script("train.py", *photographs(tmp_path, broken=2), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 training images; 3 updates of 2 go over them 1 times" in done.stdout
    assert "1 unreadable images replaced" in done.stdout
    assert done.stdout.count("first update done, in ") == 1
    assert "warning: 1 unreadable training images were replaced by others" in done.stdout
    assert "2 validation images in" in done.stdout
    assert "warning: 1 images cannot be used, and their objects count as missed: 2.png: the file is" in done.stdout
    assert len(json.loads((tmp_path / "run" / "metrics.json").read_text())["left_out"]) == 1


@pytest.mark.parametrize("count", [1, 3])
def test_missing_validation_images_are_told_before_any_step(count: int, tmp_path: Path) -> None:
    arguments = photographs(tmp_path, broken=5)
    for k in range(count):
        (tmp_path / f"{k}.png").unlink()
    early = run_script("train.py", *arguments, cwd=tmp_path)
    assert early.returncode == 2 and early.stderr.count("\n") == 1
    assert "without --recipe" not in early.stdout
    assert f"0.png: no such image; {count} of the 3 validation images are missing: check --val-images" in early.stderr
    assert not (tmp_path / "run" / "log.jsonl").exists() and not list((tmp_path / "run").rglob("*.pt"))


def test_who_names_no_recipe_for_own_images_is_told_what_that_means(tmp_path: Path) -> None:
    arguments = [item for item in photographs(tmp_path, broken=5) if item not in ("--recipe", "small")]
    (tmp_path / "0.png").unlink()
    early = run_script("train.py", *arguments, "host.backbone.weights=none", cwd=tmp_path)
    assert early.returncode == 2 and "without --recipe the schedule is COCO's" in early.stdout, early.stderr
    assert "docs/train.md" in early.stdout and (SCRIPTS.parent / "docs" / "train.md").is_file()
