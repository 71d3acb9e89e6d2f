"""BPR: where its patches lie, how they are put together, and its command."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import box_iou

from engine.bpr import WORSE, PatchDataset, worse_entries
from eval.checks import GroundTruth
from models.bpr import BPR, BPRConfig
from models.bpr.patches import Patches, Windows, open_windows, propose
from sharpcontour.masks.run_lengths import RLE
from tests.models.helpers import disc, rle_of

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def rles(masks: np.ndarray) -> list[RLE]:
    return [rle_of(mask, text=True) for mask in masks]


def opened(masks: np.ndarray, side: int = 64) -> Windows:
    return open_windows(rles(masks), (masks.shape[1], masks.shape[2]), side)


def full(windows: Windows) -> np.ndarray:
    return np.stack([coco_mask.decode(windows.rle(k)).astype(bool) for k in range(len(windows))])


def square(x0: int, y0: int, x1: int, y1: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((1, height, width), bool)
    mask[0, y0:y1, x0:x1] = True
    return mask


def test_patches_of_a_square_counted_by_hand() -> None:
    """Without suppression one patch a boundary pixel: 10 x 10 has 36 pixels inside and 44 around it, 80 in all."""
    mask = square(100, 90, 110, 100, 200, 220)
    patches = propose(opened(mask), 64, 1.0)
    centres = {(x + 32, y + 32) for x, y in patches.corner.tolist()}
    ring = {(x, y) for x in range(99, 111) for y in range(89, 101)} - {
        (x, y) for x in range(101, 109) for y in range(91, 99)
    }
    assert len(patches.mask) == 80 and centres == ring
    # 64 px patches 10 px apart overlap by more than a quarter: one is left.
    assert len(propose(opened(mask), 64, 0.25).mask) == 1
    # A corner pixel inside has S = 4 and so the full strength; a straight edge S = 6 inside and 3 outside.
    first = propose(opened(mask), 64, 0.25).corner[0] + 32
    assert first.tolist() == [100, 90]


def test_patches_of_a_border_are_moved_inside() -> None:
    """What lies outside counts as background, and the last row and column are left out, as in the original."""
    for mask, corner in (
        (square(0, 0, 1, 1, 100, 120), [0, 0]),
        (square(119, 99, 120, 100, 100, 120), [120 - 65, 100 - 65]),
        (square(119, 0, 120, 1, 100, 120), [120 - 65, 0]),
    ):
        assert propose(opened(mask), 64, 0.25).corner.tolist() == [corner]
    everything = propose(opened(square(0, 0, 120, 100, 100, 120)), 64, 1.0)
    assert len(everything.mask) == 2 * 120 + 2 * 98  # the border is a boundary, the inside is none
    # Column 88 is the first whose patch would end at the image's width.
    ends = propose(opened(square(86, 50, 88, 51, 100, 120)), 64, 1.0)
    assert ends.corner[:, 0].max() == 55 and (ends.corner[:, 0] == 55).sum() == 6  # columns 87 and 88


def test_patches_cover_the_boundary() -> None:
    masks = np.stack([disc(100, 75, 40, 150, 200), disc(5, 5, 20, 150, 200), np.zeros((150, 200), bool)])
    windows = opened(masks)
    counts = []
    for threshold in (0.15, 0.55):
        patches = propose(windows, 64, threshold)
        counts.append(len(patches.mask))
        assert (patches.mask.diff() >= 0).all() and set(patches.mask.tolist()) == {0, 1}
        assert patches.corner.min() >= 0 and (patches.corner + 64 <= torch.tensor([200, 150])).all()
        covered = full(patches.merge(torch.ones(len(patches.mask), 64, 64), windows))
        edge = masks[0] ^ disc(100, 75, 38, 150, 200)
        assert covered[0][edge].mean() > 0.85 and not covered[2].any()
        of_first = patches.corner[patches.mask == 0]
        boxes = torch.cat([of_first, of_first + 64], 1).float()
        assert (box_iou(boxes, boxes) - torch.eye(len(boxes))).max() <= threshold  # none of these was moved
    assert counts[1] > counts[0]


def test_windows_hold_the_objects_and_little_else() -> None:
    masks = np.stack([disc(300, 200, 10, 900, 1000), np.zeros((900, 1000), bool), disc(990, 890, 20, 900, 1000)])
    windows = opened(masks)
    assert (full(windows) == masks).all()
    assert len(windows.values) < 2 * (42 + 66) ** 2
    assert windows.extent[1].tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(64, 90), (90, 64), (20, 30)])
def test_small_images_pass_unchanged(shape: tuple[int, int]) -> None:
    given = rles(disc(12, 12, 8, *shape)[None])
    refined = BPR(BPRConfig()).eval().refine(torch.zeros(3, *shape, dtype=torch.uint8), given)
    assert refined[0] is given[0]


def test_nothing_to_refine() -> None:
    model, image = BPR(BPRConfig()).eval(), torch.zeros(3, 90, 90, dtype=torch.uint8)
    empty = rles(np.zeros((1, 90, 90), bool))
    assert model.refine(image, []) == [] and model.refine(image, empty)[0] is empty[0]


def test_merging_is_an_average() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((2, 20, 24)) > 0.5
    corner, mask = rng.integers(0, 12, (5, 2)), np.array([0, 0, 0, 1, 1])
    answers = rng.random((5, 8, 8)).astype(np.float32)
    total, count = np.zeros(masks.shape), np.zeros(masks.shape)
    for (x, y), k, answer in zip(corner, mask, answers, strict=True):
        for i in range(8):
            for j in range(8):
                total[k, y + i, x + j] += answer[i, j]
                count[k, y + i, x + j] += 1
    wanted = np.where(count > 0, total / np.maximum(count, 1) > 0.5, masks)
    patches, windows = Patches(torch.from_numpy(corner), torch.from_numpy(mask), 8), opened(masks, 8)
    assert (full(patches.merge(torch.from_numpy(answers), windows)) == wanted).all()
    image = torch.from_numpy(rng.integers(0, 255, (3, 20, 24)))
    x, y = corner[4]
    assert torch.equal(patches.cut_image(image)[4], image[:, y : y + 8, x : x + 8])
    assert (patches.cut_masks(windows)[4].numpy() == masks[1, y : y + 8, x : x + 8]).all()


def test_outside_of_patches_nothing_changes() -> None:
    torch.manual_seed(0)
    masks = np.stack([disc(150, 150, 110, 300, 300), disc(40, 40, 15, 300, 300)])
    masks[0] |= disc(150, 150, 3, 300, 300)
    refined = BPR(BPRConfig()).eval().refine(torch.randint(0, 255, (3, 300, 300), dtype=torch.uint8), rles(masks))
    windows = opened(masks)
    patches = propose(windows, 64, 0.25)
    for k, rle in enumerate(refined):
        covered = np.zeros((300, 300), bool)
        for x, y in patches.corner[patches.mask == k].tolist():
            covered[y : y + 64, x : x + 64] = True
        changed = coco_mask.decode(rle).astype(bool) ^ masks[k]
        assert changed.any() and not changed[~covered].any()


def test_patches_to_learn_from_show_their_own_masks(tmp_path: Path) -> None:
    wanted = disc(60, 55, 30, 120, 130)
    coarse = disc(63, 55, 30, 120, 130)
    image = np.full((120, 130, 3), 30, np.uint8)
    image[wanted] = 220
    cv2.imwrite(str(tmp_path / "1.png"), image)
    data = PatchDataset([(1, rle_of(coarse), rle_of(wanted))], {1: tmp_path / "1.png"}, BPRConfig(), 0, 40)
    for k in range(len(data)):
        pixels, given, target = data[k]
        bright = pixels.mean(0) > pixels.mean()
        assert target.any() and not target.all() and (bright == target).float().mean() > 0.98
        assert (given != target).any() and (given == target).float().mean() > 0.7


def test_it_learns_two_images() -> None:
    """Bright discs on dark, dark discs on bright: masks that are too small become right on both."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = BPR(BPRConfig(width=8, blocks=1, size=64)).train()
    scenes: list[tuple[Tensor, list[RLE], np.ndarray]] = []
    parts: list[list[Tensor]] = []
    for inside, outside in ((200, 60), (40, 180)):
        truth = np.stack([disc(60, 55, 30, 110, 120), disc(30, 90, 14, 110, 120)])
        coarse = np.stack([disc(60, 55, 26, 110, 120), disc(32, 90, 11, 110, 120)])
        noise = rng.integers(-20, 20, (110, 120, 3))
        pixels = np.where(truth.any(0)[..., None], inside, outside) + noise
        image = torch.from_numpy(pixels.astype(np.uint8)).permute(2, 0, 1)
        patches = propose(opened(coarse), 64, 0.25)
        # Windows of all of the image, since the object may leave those of its coarse mask.
        wanted = torch.from_numpy(truth)[patches.mask]
        targets = [w[y : y + 64, x : x + 64] for w, (x, y) in zip(wanted, patches.corner.tolist(), strict=True)]
        parts.append([patches.cut_image(image), patches.cut_masks(opened(coarse)), torch.stack(targets)])
        scenes.append((image, rles(coarse), truth))
    batch = [torch.cat(values) for values in zip(*parts, strict=True)]
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(80):
        optimizer.zero_grad()
        model.loss(*batch).backward()
        optimizer.step()
    model.eval()
    for image, coarse_rles, truth in scenes:
        wanted_rles = rles(truth)
        for old, new, goal in zip(coarse_rles, model.refine(image, coarse_rles), wanted_rles, strict=True):
            before, after = (float(coco_mask.iou([rle], [goal], [0])[0, 0]) for rle in (old, new))
            assert before < 0.8 and after > 0.95


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a script in this process and an empty folder, its constants changed: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def call(script: str, *arguments: str, **constants: int) -> tuple[int, str, str]:
        spec = importlib.util.spec_from_file_location(f"{script}_command", SCRIPTS / f"{script}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, value in constants.items():
            setattr(module, name, value)
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
        with pytest.raises(SystemExit) as left:
            module._cli.run(module.main)
        return (int(left.value.code or 0), *capsys.readouterr())

    return call


def test_the_command(run: Command, tmp_path: Path) -> None:
    counts = ("--train-count", "1", "--val-count", "3")
    assert run("prepare_data", "shapes", "--root", ".", *counts)[0] == 0
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
    code, out, err = run("bpr", "train", *files, "--out", "b.pt", "--iterations", "3", "--batch", "4", "--workers", "0")
    assert code == 0 and "detections to learn from" in out, err
    code, out, err = run("bpr", "refine", "--checkpoint", "b.pt", *files, "--out", "r2.json")
    assert code == 0 and "3 images" in out, err
    assert "mask AP" in out and "Boundary AP" in out and "ms each" in out
    refined = json.loads((tmp_path / "r2.json").read_text())
    assert [{**e, "segmentation": 0} for e in refined] == [{**e, "segmentation": 0} for e in entries]
    assert refined != entries
    state = torch.load(tmp_path / "b.pt", weights_only=True)
    again = (*files, "--out", "c.pt", "--iterations", "3", "--batch", "4", "--workers", "0")
    assert run("bpr", "train", *again)[0] == 0
    repeated = torch.load(tmp_path / "c.pt", weights_only=True)
    assert all(torch.equal(value, repeated["model"][name]) for name, value in state["model"].items())


def test_an_image_that_cannot_be_read_is_named_in_a_line(run: Command, tmp_path: Path) -> None:
    assert run("prepare_data", "shapes", "--root", ".", "--train-count", "1", "--val-count", "1")[0] == 0
    (image,) = (tmp_path / "val2017").iterdir()
    image.write_bytes(image.read_bytes()[:500])
    files = ("--annotations", "annotations/instances_val2017.json", "--images", "val2017", "--out", "b.pt")
    code, _, err = run("bpr", "train", *files, "--iterations", "3", "--batch", "4", "--workers", "1")
    assert code == 2 and err.splitlines()[-1].startswith("error: val2017/") and "cut short; replace it" in err
    assert "Traceback" not in err


def test_without_results_it_learns_from_masks_made_worse(run: Command, tmp_path: Path) -> None:
    assert run("prepare_data", "shapes", "--root", ".", "--train-count", "1", "--val-count", "2")[0] == 0
    path = tmp_path / "annotations/instances_val2017.json"
    truth = GroundTruth(json.loads(path.read_text()), str(path))
    objects = truth.coco.dataset["annotations"]
    entries = worse_entries(truth, seed=3)
    assert [e["image_id"] for e in entries] == [one["image_id"] for one in objects for _ in range(WORSE)]
    masks = coco_mask.decode([e["segmentation"] for e in entries])
    own = coco_mask.decode([one["segmentation"] for one in objects for _ in range(WORSE)])
    changed = (masks != own).any((0, 1))
    assert changed.mean() > 0.5 and not np.array_equal(masks[..., 0], masks[..., 1])
    files = ("--annotations", str(path), "--images", "val2017", "--out", "b.pt")
    code, out, err = run("bpr", "train", *files, "--iterations", "1", "--batch", "2", "--workers", "0")
    assert code == 0 and "detections to learn from" in out, err
    code, _, err = run("bpr", "refine", "--checkpoint", "b.pt", *files)
    assert code == 2 and "--results" in err


def test_an_interrupted_training_goes_on(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit as if it had not been; another budget is refused."""
    assert run("prepare_data", "shapes", "--root", ".", "--train-count", "1", "--val-count", "2")[0] == 0
    annotations = json.loads((tmp_path / "annotations/instances_val2017.json").read_text())
    keys = ("image_id", "category_id", "segmentation")
    found = [{"score": 0.5} | {key: one[key] for key in keys} for one in annotations["annotations"]]
    (tmp_path / "r.json").write_text(json.dumps(found))
    files = ("--results", "r.json", "--annotations", "annotations/instances_val2017.json", "--images", "val2017")
    options = ("train", *files, "--batch", "2", "--workers", "0", "--iterations")
    assert run("bpr", *options, "5", "--out", "whole.pt")[0] == 0
    learn, updates = BPR.loss, []

    def interrupted(self: BPR, *batch: Tensor) -> Tensor:
        updates.append(1)
        if len(updates) == 5:
            raise KeyboardInterrupt
        return learn(self, *batch)

    monkeypatch.setattr(BPR, "loss", interrupted)
    monkeypatch.setattr("engine.bpr.SAVE_EVERY", 3)
    assert run("bpr", *options, "5", "--out", "parts.pt")[0] == 130
    assert (tmp_path / "parts.pt.part").is_file() and not (tmp_path / "parts.pt").exists()
    code, _, err = run("bpr", *options, "6", "--out", "parts.pt")
    assert code == 2 and "parts.pt.part: was begun with other iterations; remove it" in err
    (tmp_path / "r.json").write_text(json.dumps(found[:-1]))
    code, _, err = run("bpr", *options, "5", "--out", "parts.pt")
    assert code == 2 and "parts.pt.part: was begun with other detections; remove it" in err
    (tmp_path / "r.json").write_text(json.dumps(found))
    code, out, _ = run("bpr", *options, "5", "--out", "parts.pt")
    assert code == 0 and "goes on after 3 updates" in out and len(updates) == 5 + 2
    whole, parts = (torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "parts.pt"))
    assert all(torch.equal(value, parts["model"][name]) for name, value in whole["model"].items())
    assert not (tmp_path / "parts.pt.part").exists()


def test_an_interrupted_refinement_goes_on(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image by image; one that cannot be read or fails costs no other, and what failed is tried again."""
    mask = rle_of(disc(40, 40, 20, 80, 90), text=True)
    images = [{"id": k, "height": 80, "width": 90, "file_name": f"{k}.png"} for k in range(1, 5)]
    annotation = {"image_id": 1, "category_id": 1, "area": 9.0, "iscrowd": 0, "segmentation": mask, "id": 1}
    entries = [{"image_id": k, "category_id": 1, "score": 0.5, "segmentation": mask} for k in range(1, 5)]
    truth = {"images": images, "categories": [{"id": 1}], "annotations": [annotation]}
    for name, value in (("gt.json", truth), ("r.json", entries)):
        (tmp_path / name).write_text(json.dumps(value))
    for k in range(1, 5):
        cv2.imwrite(f"{k}.png", np.full((80, 90, 3), 40 * k, np.uint8))
    config = {"model": "bpr", "bpr": {"width": 8}}
    torch.manual_seed(0)
    weights = BPR(BPRConfig(width=8)).state_dict()
    torch.save({"model": weights, "config": config, "categories": [], "step": 1}, "b.pt")
    command = ("bpr", "refine", "--checkpoint", "b.pt", "--results", "r.json", "--annotations", "gt.json")
    command = (*command, "--images", ".", "--device", "cpu", "--out", "o.json")
    assert run(*command)[0] == 0
    expected = json.loads(Path("o.json").read_text())
    Path("o.json").unlink()
    refine, seen = BPR.refine, []

    def disturbed(self: BPR, image: Tensor, masks: list[RLE]) -> list[RLE]:
        value = int(image[0, 0, 0])
        seen.append(value)
        if seen == [40, 80, 120]:
            raise KeyboardInterrupt
        if value == 160 and len(seen) < 6:
            raise MemoryError("too much")
        return refine(self, image, masks)

    monkeypatch.setattr(BPR, "refine", disturbed)
    code, out, _ = run(*command)
    assert code == 130 and "o.json.part; the same command goes on from there" in out and not Path("o.json").exists()
    good = Path("3.png").read_bytes()
    Path("3.png").write_bytes(good[:60])
    code, out, err = run(*command)
    assert code == 1 and "1 image failed; the same command tries what failed again" in out, err
    assert "1 x image that cannot be read, 3.png (first: entry 2)" in out
    assert "1 x image that failed, 4.png (MemoryError: too much) (first: entry 3)" in out
    assert json.loads(Path("o.json").read_text()) == expected[:2] + entries[2:]
    Path("3.png").write_bytes(good)
    assert run(*command)[0] == 0 and seen == [40, 80, 120, 160, 120, 160] and not Path("o.json.part").exists()
    assert json.loads(Path("o.json").read_text()) == expected


def test_what_the_command_refuses(run: Command, tmp_path: Path) -> None:
    """One line that names the file, and exit code 2."""
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((80, 90, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "2.png"), np.zeros((50, 50, 3), np.uint8))
    one = disc(40, 40, 20, 80, 90)

    def truth(name: str) -> dict[str, Any]:
        image = {"id": 1, "height": 80, "width": 90, "file_name": name}
        fields = {"id": 1, "image_id": 1, "category_id": 1, "area": 9.0, "iscrowd": 0}
        return {
            "images": [image],
            "categories": [{"id": 1}],
            "annotations": [fields | {"segmentation": rle_of(one, text=True)}],
        }

    entry = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": rle_of(one, text=True)}
    away = {**entry, "segmentation": rle_of(disc(80, 70, 4, 80, 90), text=True)}
    written = {
        "gt.json": truth("1.png"),
        "other.json": truth("2.png"),
        "gone.json": truth("3.png"),
        "r.json": [entry],
        "away.json": [away],
        "broken.json": [{**entry, "segmentation": {"size": [80, 90], "counts": "1"}}],
        "dict.json": {},
    }
    for name, value in written.items():
        (tmp_path / name).write_text(json.dumps(value))
    (tmp_path / "garbage.pt").write_bytes(b"no checkpoint")
    model = BPR(BPRConfig(width=8))
    state = {"model": model.state_dict(), "config": {"model": "bpr", "bpr": {"width": 16}}, "categories": [], "step": 1}
    torch.save(state, tmp_path / "misfit.pt")
    torch.save({**state, "config": {"model": "dance"}}, tmp_path / "host.pt")
    for task, truths, results, checkpoint, named in (
        ("train", "gt.json", "away.json", "", "away.json"),
        ("train", "gt.json", "dict.json", "", "dict.json"),
        ("train", "other.json", "r.json", "", "2.png"),
        ("train", "gone.json", "r.json", "", "3.png"),
        ("refine", "gt.json", "broken.json", "misfit.pt", "broken.json"),
        ("refine", "gt.json", "r.json", "garbage.pt", "garbage.pt"),
        ("refine", "gt.json", "r.json", "misfit.pt", "misfit.pt"),
        ("refine", "gt.json", "r.json", "host.pt", "host.pt"),
        ("refine", "gt.json", "r.json", "none.pt", "none.pt"),
    ):
        more = ["--checkpoint", checkpoint] if checkpoint else ["--iterations", "1", "--batch", "1", "--workers", "0"]
        files = ["--annotations", truths, "--results", results, "--images", ".", "--out", "out"]
        code, _, err = run("bpr", task, *files, *more)
        assert code == 2 and named in err.splitlines()[-1], (named, err)
        assert err.count("error: ") == 1 and "Traceback" not in err
        assert not (tmp_path / "out").exists()
