"""Faults of long trainings: what was mended once stays so. Every test fails without its mend."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

import data.loader
from data import DataConfig, build_dataset
from data.loader import build_loader
from engine import checkpoint
from engine.checkpoint import fingerprint
from engine.lock import TrainingLock
from engine.update import Updater
from models.loading import checkpoints, read_checkpoint
from sharpcontour.errors import InputError
from sharpcontour.io.files import write_whole
from tests.commands import run_script
from tests.engine import toy

TINY = ["data.train_images_count=4", "data.val_images_count=2", "data.shapes_size=64", "data.workers=0"]
TINY += ["train.iterations=2", "train.images_per_batch=2", "train.warmup_iterations=1", "train.pictures=0"]
TINY += ["train.checkpoint_period=1", "train.amp=none"]
TINY += ["host.backbone.name=resnet10", "host.backbone.width=16", "host.backbone.fpn_channels=32", "host.channels=32"]


def train(folder: Path, *arguments: str, out: str = "run", settings: tuple[str, ...] = ()) -> Any:
    return run_script("train.py", "--model", "dance", "--out", out, *arguments, "--set", *TINY, *settings, cwd=folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of two steps, both of them kept."""
    folder = tmp_path_factory.mktemp("trained")
    done = train(folder)
    assert done.returncode == 0, done.stderr
    return folder


def state(step: int = 1) -> dict[str, Any]:
    return {"model": {"a": torch.full((3,), float(step))}, "config": {}, "categories": [], "step": step}


def test_checkpoints_of_the_run_win_over_the_one_it_began_from(trained: Path, tmp_path: Path) -> None:
    first = trained / "run" / "checkpoints" / "step_00000001.pt"
    begun = train(tmp_path, "--resume", str(first))
    assert begun.returncode == 0 and "resuming after step 1" in begun.stdout
    again = train(tmp_path, "--resume", str(first), settings=("train.iterations=3",))
    assert again.returncode == 0 and "resuming after step 2" in again.stdout
    assert "this run's newest, and not from --resume" in again.stdout
    back = train(tmp_path, "--resume", "run/checkpoints/step_00000002.pt", settings=("train.iterations=3",))
    assert "going on from run/checkpoints/step_00000003.pt" in back.stdout and "remove the later" in back.stdout


def test_going_back_to_an_earlier_step(trained: Path, tmp_path: Path) -> None:
    """Newest means the highest step, whenever it was written; a branch that was removed leaves nothing behind."""
    folder = tmp_path / "run" / "checkpoints"
    shutil.copytree(trained / "run", tmp_path / "run")
    os.utime(folder / "step_00000002.pt", (0, 0))
    more = ("train.log_period=1", "train.keep_checkpoints=9")
    on = train(tmp_path, settings=("train.iterations=4", *more))
    assert on.returncode == 0 and "resuming after step 2" in on.stdout, on.stderr
    for step in (2, 3, 4):
        (folder / f"step_{step:08d}.pt").unlink()
    first = (tmp_path / "run" / "metrics.json").read_text()
    back = train(tmp_path, settings=("train.iterations=3", *more))
    assert back.returncode == 0 and "resuming after step 1" in back.stdout, back.stderr
    assert [path.name for path in checkpoints(folder)] == [f"step_{step:08d}.pt" for step in (3, 2, 1)]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line and line["step"] > 1] == [2, 3]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["step"] == 3 and '"step": 4' in first


def test_a_body_that_is_not_frozen_is_told(trained: Path, tmp_path: Path) -> None:
    begun = train(tmp_path, settings=(f"train.init_from={trained / 'run'}",))
    assert begun.returncode == 0, begun.stderr
    assert "no stage of the body from there is frozen" in begun.stdout and "set host.backbone.weights=" in begun.stdout
    more = (
        f"train.init_from={trained / 'run'}",
        f"host.backbone.weights={trained / 'run/checkpoints/step_00000002.pt'}",
    )
    frozen = train(tmp_path, out="other", settings=more)
    assert frozen.returncode == 0 and "no stage of the body" not in frozen.stdout, frozen.stderr


class Unsendable:
    """What happens where shared memory or open files run out: the thread that hands a batch over fails."""

    def __reduce__(self) -> Any:
        raise OSError(errno.ENOSPC, "no more of it")


def unsendable(samples: object) -> Unsendable:
    return Unsendable()


def late(samples: object) -> None:
    time.sleep(2)


def test_a_loader_that_cannot_hand_over_ends_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.loader, "_collate", unsendable)
    dataset = build_dataset(DataConfig(shapes_size=64, train_images_count=4), "train")
    with pytest.raises(InputError, match=r"gave up \(OSError: .*no more of it\).*/dev/shm.*data\.workers=0"):
        next(iter(build_loader(dataset, 2, training=True, workers=1)))


def test_waiting_for_a_loader_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.loader, "WAIT", 1.0)
    monkeypatch.setattr(data.loader, "_collate", late)
    dataset = build_dataset(DataConfig(shapes_size=64, train_images_count=4), "train")
    with pytest.raises(InputError, match=r"gave up \(DataLoader timed out .*data\.workers=0"):
        next(iter(build_loader(dataset, 2, training=True, workers=1)))


def test_other_class_names_and_other_images_are_refused(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    config = {"model": "toy", "refine": False}
    known = {**state(), "config": config, "categories": categories, "images": fingerprint([4, 7, 9])}
    swapped = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    with pytest.raises(InputError, match="its classes differ"):
        checkpoint.check_fits(known, config, swapped, tmp_path)
    with pytest.raises(InputError, match="was trained on 3 images, which are not the 2 of the data"):
        checkpoint.check_fits(known, config, categories, tmp_path, fingerprint([4, 9]))
    with pytest.raises(InputError, match="which are not the 3"):
        checkpoint.check_fits(known, config, categories, tmp_path, fingerprint([4, 9, 7]))
    checkpoint.check_fits(known, config, categories, tmp_path, fingerprint(np.array([4, 7, 9])))
    old = {key: value for key, value in known.items() if key != "images"}
    checkpoint.check_fits(old, config, categories, tmp_path, fingerprint([1]))


def test_flipped_bytes_are_found(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, {**state(), "model": {"a": torch.randn(20_000)}}, 1, 3)
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda info: info.file_size)
    content = bytearray(path.read_bytes())
    begin = largest.header_offset + 4096
    content[begin : begin + 4000] = bytes(value ^ 0x55 for value in content[begin : begin + 4000])
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"step_00000001\.pt: damaged \(the checksum of"):
        read_checkpoint(path)


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1), 1, keep=1)
    broken = {**state(2), "model": {"a": torch.tensor([1.0, float("nan")])}}
    with pytest.raises(InputError, match="not written, the weight a is not finite"):
        checkpoint.save(tmp_path, broken, 2, keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000001.pt"]
    for contents in (broken, broken["model"]):  # as convert.py and bpr.py write them
        with pytest.raises(InputError, match=r"body\.pt: not written, the weight a is not finite; use another file"):
            checkpoint.save_file(contents, tmp_path / "body.pt", mend="use another file")
    torch.save(broken, tmp_path / "other.pt")
    with pytest.raises(InputError, match="its weight a is not finite"):
        read_checkpoint(tmp_path / "other.pt")


@pytest.mark.skipif(os.name != "posix", reason="the other process is told by its group")
def test_a_folder_and_a_file_have_one_training_at_a_time(tmp_path: Path) -> None:
    root, run, file = str(Path(__file__).resolve().parents[2]), tmp_path / "run", tmp_path / "bpr.pt"
    code = (
        f"import sys; sys.path.insert(0, {root!r})\n"
        "from pathlib import Path; from engine.lock import TrainingLock\n"
        f"locks = TrainingLock(Path({str(run)!r})), TrainingLock(Path({str(file)!r}), is_file=True)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:  # type: ignore[call-overload]
        assert other.stdout.readline() == "held\n"
        for out, is_file in ((run, False), (file, True)):
            with pytest.raises(InputError, match=rf"{out.name}: process {other.pid} on .* is training here"):
                TrainingLock(out, is_file)
        other.kill()
        other.wait()
    TrainingLock(run).release()  # nobody has to clean up after a killed one
    TrainingLock(file, is_file=True).release()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_norm_that_overflows_is_skipped_and_said_so(clip: float) -> None:
    """Finite gradients whose squares are not: the scaler alone would let them pass, as NaN."""
    model = torch.nn.Linear(4, 1, bias=False)
    before = model.weight.detach().clone()
    settings = toy.config(amp="fp16", clip_grad_norm=clip, optimizer="adamw")

    class Steep(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, images: Any, targets: Any) -> dict[str, Tensor]:
            return {"loss": (self.inner.weight * 1e30).sum()}

    updater = Updater(Steep(), settings, toy.World())
    updater.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    updater.begin()
    updater.backward([], [], last=True)
    norm, skipped = updater.finish()
    assert bool(skipped) and not norm.isfinite()
    assert torch.equal(model.weight, before) and updater.scaler.get_scale() == 0.5


def test_a_refused_start_leaves_the_configuration_of_the_run(trained: Path) -> None:
    before = (trained / "run" / "config.json").read_text()
    refused = train(trained, "--refine")
    assert refused.returncode == 2 and "this run has refine=True" in refused.stderr
    mistyped = train(trained, "--resume", "runs/none.pt", out="new")
    assert mistyped.returncode == 2 and not (trained / "new" / "config.json").exists()
    assert (trained / "run" / "config.json").read_text() == before


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"x\.bin: the disk is full: 2 MiB are needed, \d+ MiB are free; make room"):
        write_whole(b"x" * 2 * 2**20, tmp_path / "x.bin")
    big = {**state(), "model": {"a": torch.zeros(3 * 2**18)}}
    with pytest.raises(InputError, match=r"the disk is full: 3 MiB are needed.*earlier checkpoints are untouched"):
        checkpoint.save(tmp_path, big, 1, 3)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_logging_is_one_line(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import engine.logging

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(engine.logging, "open", full, raising=False)
    done = train(trained, out="logs")
    assert done.returncode == 2 and "log.jsonl: the disk is full" in done.stderr and done.stderr.count("\n") == 1


def test_what_a_killed_write_left_is_cleaned_first(trained: Path) -> None:
    stray = trained / "run" / "checkpoints" / ".step_00000009.pt.123.tmp"
    stray.write_bytes(b"x")
    assert train(trained).returncode == 0 and not stray.exists()


def test_a_log_with_other_bytes_does_not_stop_a_start(trained: Path) -> None:
    log = trained / "run" / "log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"step": 1, "note": "caf\xe9"}\n\xff\xfe\n')
    assert train(trained).returncode == 0
    assert all(json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_checkpoints_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints").chmod(0o500)
    done = train(tmp_path)
    assert done.returncode == 2 and "checkpoints" in done.stderr and "step" not in done.stdout.split("\n")[-2]


@pytest.mark.parametrize(
    ("arguments", "setting", "message"),
    [
        ([], "data.short_sides=64", "the data set shapes has no use for it"),
        ([], "data.root=x", "the data set shapes has no use for it"),
        (["--root", "x"], "data.val_images_count=4", "the data set coco has no use for it"),
        ([], "sharpcontour.loss.weight=1", "there is no refiner without --refine"),
        (
            ["--root", "x", "--model", "anymask", "--refine", "--recipe", "anymask_photos"],
            "data.short_sides=64",
            "data.object_crop has no use for it",
        ),
        ([], "train.steps=100", "train.schedule=cosine has no use for it"),
        (["--refine"], "sharpcontour.transformer.width=64", "classifier.output=polygon has a transformer"),
        (
            ["--refine", "--set", "sharpcontour.classifier.output=vector"],
            "sharpcontour.evolution.max_steps=3",
            "a regression, classifier.output=vector, has no use for it",
        ),
    ],
)
def test_settings_that_nothing_reads_are_refused(
    arguments: list[str], setting: str, message: str, tmp_path: Path
) -> None:
    done = run_script("train.py", *arguments, "--set", setting, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and setting.partition("=")[0] in done.stderr


def test_every_command_falls_back_from_a_damaged_checkpoint(trained: Path, tmp_path: Path) -> None:
    """One policy: of a run's folder the newest that can be read, with a warning that names the other."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    good = (trained / "run" / "checkpoints" / "step_00000001.pt").read_bytes()
    (folder / "step_00000001.pt").write_bytes(good)
    (folder / "step_00000002.pt").write_bytes(good[: len(good) // 2])
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((64, 64, 3), np.uint8))
    for command in (
        ["evaluate.py", "--checkpoint", "run"],
        ["predict.py", "--checkpoint", "run", "--out", "found", "photo.png"],
        ["train.py", "--model", "dance", "--out", "second", "--resume", "run", "--set", *TINY],
        ["train.py", "--model", "dance", "--out", "third", "--set", *TINY, "train.init_from=run"],
    ):
        done = run_script(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "step_00000002.pt: damaged or cut off" in done.stderr and "trying the one before" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate.py", "--checkpoint", "evil.pt"],
        ["predict.py", "--checkpoint", "evil.pt", "--out", "o", "photo.png"],
        ["train.py", "--resume", "evil.pt", "--out", "o"],
        ["train.py", "--out", "o", "--set", "train.init_from=evil.pt"],
        ["train.py", "--out", "o", "--set", "host.backbone.weights=evil.pt"],
        ["convert.py", "--from", "torchvision", "evil.pt", "o.pt"],
    ],
)
def test_a_hostile_file_is_called_refused_everywhere(command: list[str], tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "was_run"),)

    torch.save({"model": {}, "config": {}, "categories": [], "step": 1, "more": Payload()}, tmp_path / "evil.pt")
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((8, 8, 3), np.uint8))
    done = run_script(*command, cwd=tmp_path)
    assert done.returncode == 2 and "refused" in done.stderr and done.stderr.count("\n") == 1
    assert "weights_only" not in done.stderr and not (tmp_path / "was_run").exists()


def test_another_optimizer_at_resume_is_told(trained: Path) -> None:
    done = train(trained, settings=("train.optimizer=sgd", "train.iterations=4"))
    assert done.returncode == 2 and "its optimizer state does not fit" in done.stderr


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"a": torch.ones(2)}, "foreign.pt: has no weight backbone."),
        ([torch.ones(2)], "foreign.pt: no checkpoint of this project (its 'model' holds no weights by name)"),
    ],
)
def test_a_file_to_begin_from_must_have_weights_that_fit(weights: Any, told: str, tmp_path: Path) -> None:
    torch.save({"model": weights}, tmp_path / "foreign.pt")
    done = train(tmp_path, settings=("train.init_from=foreign.pt", "train.warmup_iterations=2"))
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert "warning: the warm-up takes 2 of 2 updates" in done.stdout
