"""BPR: where its patches lie, how they are put together, and its command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torchvision.ops import box_iou

from models.bpr import BPR, BPRConfig
from models.bpr.patches import Patches, propose
from tests.models.helpers import disc, rle_of

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_patches_cover_the_boundary_and_lie_inside() -> None:
    masks = np.stack([disc(100, 70, 40, 150, 200), disc(5, 5, 20, 150, 200), np.zeros((150, 200), bool)])
    for threshold in (0.15, 0.55):
        patches = propose(torch.from_numpy(masks), 64, threshold)
        assert (patches.mask.diff() >= 0).all() and set(patches.mask.tolist()) == {0, 1}
        assert patches.corner.min() >= 0
        # The original moves patches to the last pixel but one.
        assert (patches.corner + 64 <= torch.tensor([200, 150])).all()
        covered = patches.merge(torch.ones(len(patches.mask), 64, 64), torch.zeros(3, 150, 200, dtype=torch.bool))
        edge = masks[0] ^ disc(100, 70, 38, 150, 200)
        assert covered[0].numpy()[edge].mean() > 0.85 and not covered[2].any()
        of_first = patches.corner[patches.mask == 0]
        boxes = torch.cat([of_first, of_first + 64], 1).float()
        assert (box_iou(boxes, boxes) - torch.eye(len(boxes))).max() <= threshold + 0.1  # some were moved inside
    assert len(propose(torch.from_numpy(masks), 64, 0.55).mask) > len(propose(torch.from_numpy(masks), 64, 0.15).mask)


def test_the_strength_of_a_boundary() -> None:
    """Of a straight edge every pixel on both sides gets a patch; the first one kept is one of the strongest."""
    mask = torch.zeros(1, 100, 100, dtype=torch.bool)
    mask[0, :, 50:] = True
    patches = propose(mask, 64, 1.0)
    rows = {(int(x) + 32, int(y) + 32) for x, y in patches.corner if 0 < x < 35 and 0 < y < 35}
    assert {x for x, _ in rows} == {49, 50} and {y for _, y in rows} >= set(range(33, 67))


def test_small_images_pass() -> None:
    masks = torch.from_numpy(np.stack([disc(30, 30, 20, 64, 90)]))
    assert len(propose(masks, 64, 0.25).mask) == 0
    model = BPR(BPRConfig()).eval()
    assert torch.equal(model.refine(torch.zeros(3, 64, 90, dtype=torch.uint8), masks), masks)
    assert model.refine(torch.zeros(3, 90, 90, dtype=torch.uint8), masks[:0, :, :0].new_zeros(0, 90, 90)).shape[0] == 0


def test_merging_is_an_average() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((2, 20, 24)) > 0.5
    corner, mask = rng.integers(0, 12, (5, 2)), np.array([0, 0, 0, 1, 1])
    answers = rng.random((5, 8, 8)).astype(np.float32)
    total, count = np.zeros(masks.shape), np.zeros(masks.shape)
    for (x, y), k, answer in zip(corner, mask, answers, strict=True):
        total[k, y : y + 8, x : x + 8] += answer
        count[k, y : y + 8, x : x + 8] += 1
    wanted = np.where(count > 0, total / np.maximum(count, 1) > 0.5, masks)
    patches = Patches(torch.from_numpy(corner), torch.from_numpy(mask), 8)
    assert (patches.merge(torch.from_numpy(answers), torch.from_numpy(masks)).numpy() == wanted).all()
    image = torch.from_numpy(rng.integers(0, 255, (1, 3, 20, 24)))
    cut = patches.cut(image, torch.zeros(5, dtype=torch.int64))
    x, y = corner[4]
    assert torch.equal(cut[4], image[0, :, y : y + 8, x : x + 8])


def test_it_learns_a_bright_disc() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    truth = disc(60, 55, 30, 110, 120)
    image = np.where(truth[..., None], 200, 60) + rng.integers(-20, 20, (110, 120, 3))
    pixels = torch.from_numpy(image.astype(np.uint8)).permute(2, 0, 1)
    coarse, wanted = torch.from_numpy(disc(60, 55, 26, 110, 120))[None], torch.from_numpy(truth)[None]
    model = BPR(BPRConfig(width=8, blocks=1, size=64)).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    patches = propose(coarse, 64, 0.25)
    images = patches.cut(pixels[None], torch.zeros_like(patches.mask))
    parts = [patches.cut(mask[:, None], patches.mask)[:, 0] for mask in (coarse, wanted)]
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(images, *parts).backward()
        optimizer.step()
    refined = model.eval().refine(pixels, coarse)[0]
    before, after = (float((m & wanted[0]).sum() / (m | wanted[0]).sum()) for m in (coarse[0], refined))
    assert before < 0.8 and after > 0.95


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SCRIPTS / arguments[0]), *arguments[1:]]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def test_the_command(tmp_path: Path) -> None:
    counts = ("--train-count", "1", "--val-count", "3")
    assert run("prepare_data.py", "shapes", "--root", ".", *counts, cwd=tmp_path).returncode == 0
    annotations = json.loads((tmp_path / "annotations/instances_val2017.json").read_text())
    entries: list[dict[str, Any]] = []
    for k, one in enumerate(annotations["annotations"]):
        mask = coco_mask.decode(one["segmentation"]).astype(bool)
        shifted = np.roll(mask, 2, 1)  # coarse
        entries.append(
            {"image_id": one["image_id"], "category_id": one["category_id"], "score": 0.5, "mine": k}
            | {"segmentation": rle_of(shifted, text=True)}
        )
    entries.reverse()
    (tmp_path / "r.json").write_text(json.dumps(entries))
    files = ("--results", "r.json", "--annotations", "annotations/instances_val2017.json", "--images", "val2017")
    trained = run(
        "bpr.py", "train", *files, "--out", "b.pt", "--iterations", "3", "--batch", "4", "--workers", "0", cwd=tmp_path
    )
    assert trained.returncode == 0 and "detections to learn from" in trained.stdout, trained.stderr
    done = run("bpr.py", "refine", "--checkpoint", "b.pt", *files, "--out", "r2.json", cwd=tmp_path)
    assert done.returncode == 0 and "3 images" in done.stdout, done.stderr
    refined = json.loads((tmp_path / "r2.json").read_text())
    assert [{**e, "segmentation": 0} for e in refined] == [{**e, "segmentation": 0} for e in entries]
    assert refined != entries
    wrong = run(
        "bpr.py", "refine", "--checkpoint", "b.pt", *files[:4], "--images", ".", "--out", "r3.json", cwd=tmp_path
    )
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "3 of 3 images are missing" in wrong.stderr
