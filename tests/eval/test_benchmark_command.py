"""scripts/benchmark.py as users type it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine import bpr
from models.bpr import BPR, BPRConfig
from tests.commands import run_script
from tests.models.test_models import checkpoint_of

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "benchmark.py"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_a_checkpoint_is_timed_in_both_configurations(tmp_path: Path) -> None:
    checkpoint_of(tmp_path / "model.pt", True, "mask_rcnn")
    setting = "sharpcontour.evolution.max_steps=40"
    turns = ("--repeats", "1", "--warmup", "0", "--vary", setting)
    done = run("--checkpoint", "model.pt", *turns, "--json", "out.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("Mask R-CNN", "+ SharpContour", "load", "host", "trace", "evolve", "encode", "total", "MiB"):
        assert word in done.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    (result,) = found["results"]
    assert list(found["varied"]) == ["", setting] and len(found["varied"][setting]) == 1
    assert result["parameters"]["host"] > 0 < result["parameters"]["refiner"]
    assert result["refined"]["evolve"] > 0 and result["host"]["total"] > 0
    assert min(result["memory_mib"].values()) > 50
    assert (found["amp"], found["channels_last"], found["tf32"]) == ("none", False, False)
    how = ("--repeats", "1", "--warmup", "0", "--amp", "bf16", "--channels-last", "--device", "cpu")
    done = run("--checkpoint", "model.pt", *how, "--json", "fast.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "fast.json").read_text())["amp"] == "bf16"


@pytest.mark.slow
def test_refiners_of_files_take_turns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bpr.save(tmp_path / "bpr.pt", BPR(BPRConfig()), 1)
    checkpoint_of(tmp_path / "model.pt", True, "mask_rcnn")
    cv2.imwrite(str(tmp_path / "one.png"), np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))
    polygon = [[20, 20, 90, 20, 90, 70, 20, 70]]
    known = {
        "images": [{"id": 1, "file_name": "one.png", "height": 90, "width": 120}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [],
    }
    entry = {"image_id": 1, "category_id": 1, "segmentation": polygon, "score": 0.9}
    (tmp_path / "gt.json").write_text(json.dumps(known))
    (tmp_path / "r.json").write_text(json.dumps([entry, {**entry, "bbox": [20, 20, 70, 50]}]))
    files = ("--results", "r.json", "--annotations", "gt.json", "--images", ".", "--repeats", "2", "--warmup", "0")
    done = run("--refiners", "bpr.pt", "model.pt", *files, "--json", "out.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 images with 2 masks; medians of 2 turns" in done.stdout
    found = json.loads((tmp_path / "out.json").read_text())["refiners"]
    assert list(found) == ["bpr.pt", "model.pt"] and all(one["ms"] > 0 for one in found.values())
    assert found["bpr.pt"]["parameters"] == sum(p.numel() for p in BPR(BPRConfig()).parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--refiners", "bpr.pt"], "go together"),
        (["--repeats", "0"], "--repeats must be 1 or more"),
        (["--checkpoint", "plain.pt"], "no refiner; train with --refine"),
        (["--image", "none.jpg"], "none.jpg: no such image"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    checkpoint_of(tmp_path / "plain.pt", False)
    failed = run_script("benchmark.py", *arguments, cwd=tmp_path)
    assert failed.returncode == 2 and message in failed.stderr and failed.stderr.count("\n") == 1
