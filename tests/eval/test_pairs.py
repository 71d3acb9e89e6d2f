"""Which objects the figures show, and that they show them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from eval.pictures.pairs import RULES, Pair, choose, find_pairs, sheet
from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from tests.commands import run_script
from tests.models.test_models import checkpoint_of


def square(x: float, y: float, side: float) -> Rings:
    return [np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], np.float32)]


def detections(*objects: Rings) -> Detections:
    n = len(objects)
    return Detections(torch.zeros(n, 4), torch.ones(n), torch.zeros(n).long(), list(objects), (100, 120))


def test_objects_are_paired_by_their_best_masks() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    truth = [square(10, 10, 30), square(60, 60, 20), square(90, 10, 20)]
    first = detections(square(62, 60, 20), square(14, 10, 30), square(0, 80, 10))
    second = detections(square(10, 10, 30), square(59, 60, 20), square(92, 10, 20))
    pairs = find_pairs(image, first, second, truth)
    assert len(pairs) == 2  # the first one does not have the third object
    assert pairs[0].first is first.rings[1] and pairs[0].second is second.rings[0]
    assert pairs[0].ious[1] == 1 and 0 < pairs[0].gain < 1 and pairs[1].gain > 0
    assert find_pairs(image, first, detections(), truth) == find_pairs(image, first, second, []) == []


def test_the_rule_shows_failures_too() -> None:
    ring = square(10, 10, 30)
    image = np.full((100, 120, 3), 90, np.uint8)
    pairs = [Pair(image, ring, ring, ring, (0.5, 0.5 + gain)) for gain in (0.1, -0.3, 0.0, 0.4, 0.2, -0.1, 0.3)]
    chosen = choose(pairs, 3)
    assert [[round(p.gain, 1) for p in chosen[rule]] for rule in RULES] == [
        [0.4, 0.3, 0.2],
        [0.2, 0.1, 0.0],
        [-0.3, -0.1, 0.0],
    ]
    few = choose(pairs[:2], 3)
    assert [len(few[rule]) for rule in RULES] == [2, 2, 2]
    picture = sheet(chosen, ("a", "b"))
    assert picture.shape[1] > picture.shape[0] and picture.std() > 10


def test_the_command_says_what_it_lacks(tmp_path: Path) -> None:
    checkpoint_of(tmp_path / "plain.pt", False)
    arguments = ["--before-after", "plain.pt", "--out", "f.png", "--images", "1"]
    done = run_script("figures.py", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and "trained with --refine" in done.stderr and not (tmp_path / "f.png").exists()


def test_how_far_phi_can_be_trusted(tmp_path: Path) -> None:
    for name, refine in (("sharp.pt", True), ("plain.pt", False)):
        path, _ = checkpoint_of(tmp_path / name, refine)
        state = torch.load(path, weights_only=True)
        state["config"]["data"] = {"name": "shapes", "shapes_size": 96, "test_short_side": 96, "test_max_side": 96}
        torch.save(state, path)
    arguments = ["--out", "f.png", "--images", "1"]
    done = run_script("figures.py", "--calibration", "sharp.pt", *arguments, cwd=tmp_path)
    assert done.returncode == 0 and "mean |phi - 0.5| 0.005 at 0.5 px" in done.stdout, done.stderr  # untrained
    assert (tmp_path / "f.png").is_file()
    done = run_script("figures.py", "--calibration", "sharp.pt", "plain.pt", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and "plain.pt: --calibration needs a detector" in done.stderr


@pytest.mark.parametrize("rule", RULES)
def test_rules_have_a_row(rule: str) -> None:
    ring = square(10, 10, 30)
    pair = Pair(np.zeros((100, 120, 3), np.uint8), ring, ring, ring, (0.4, 0.5))
    one, two = sheet({rule: [pair]}, ("a", "b")), sheet({rule: [pair], "other": [pair]}, ("a", "b"))
    assert two.shape[0] > one.shape[0] and two.shape[1] == one.shape[1]
