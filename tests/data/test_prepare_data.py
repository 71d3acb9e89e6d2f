"""scripts/prepare_data.py, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import run_script


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lvis", "--check", "--train-json", "none.json", "--train-images", "."), "none.json: no such file"),
        (("shapes", "--root", "set", "--val-count", "0"), "--train-count and --val-count must be 1 or more"),
        (("shapes", "--root", "set", "--seed", "-1"), "--seed 0 or more"),
    ],
)
def test_mistakes_are_told_before_the_work(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run_script("prepare_data.py", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_shapes_are_written_and_pass_the_check(tmp_path: Path) -> None:
    root = str(tmp_path / "set")
    done = run_script(
        "prepare_data.py",
        "shapes",
        "--root",
        root,
        "--train-count",
        "3",
        "--val-count",
        "2",
        "--size",
        "96",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    checked = run_script("prepare_data.py", "shapes", "--root", root, "--check", cwd=tmp_path)
    assert checked.returncode == 0 and checked.stdout.count("all readable") == 2
    renamed = tmp_path / "renamed.json"
    val = json.loads((tmp_path / "set" / "annotations" / "instances_val2017.json").read_text())
    renamed.write_text(json.dumps(val | {"categories": val["categories"][:1] + val["categories"][:0:-1]}))
    same = ["--root", root, "--check", "--val-json", str(renamed), "--val-images", f"{root}/val2017"]
    assert run_script("prepare_data.py", "coco", *same, cwd=tmp_path).returncode == 0  # in another order
    val["categories"][0]["name"] = "dog"
    renamed.write_text(json.dumps(val))
    other = run_script("prepare_data.py", "coco", *same, cwd=tmp_path)
    assert other.returncode == 2 and "and dog in " in other.stderr and "renamed.json, so what" in other.stderr
    train = tmp_path / "set" / "annotations" / "instances_train2017.json"
    text = json.loads(train.read_text())
    empty = [one for one in text["annotations"] if one["image_id"] != 2]
    train.write_text(json.dumps(text | {"annotations": empty}))
    told = run_script("prepare_data.py", "coco", "--root", root, "--check", cwd=tmp_path)
    assert told.returncode == 0 and "3 images, 1 of them without objects" in told.stdout
    (tmp_path / "set" / "val2017" / "shapes_val_000001.png").write_text("<html>")
    broken = run_script("prepare_data.py", "coco", "--root", root, "--check", cwd=tmp_path)
    assert broken.returncode == 2 and broken.stderr.count("\n") == 1 and "shapes_val_000001.png" in broken.stderr
