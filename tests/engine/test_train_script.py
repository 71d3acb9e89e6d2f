"""The command as users type it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.distributed import World
from engine.start import begin
from models import MODELS
from sharpcontour.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "data.train_images_count=8",
    "data.val_images_count=4",
    "data.shapes_size=96",
    "data.workers=1",
    "train.iterations=3",
    "train.images_per_batch=2",
    "train.log_period=1",
    "train.warmup_iterations=1",
    "train.pictures=2",
    "train.eval_batch=2",
    "host.backbone.name=resnet10",
    "host.backbone.width=16",
    "host.backbone.fpn_channels=32",
]
TINY_HOSTS = {
    "condinst": ["host.branch_channels=32", "host.semantic=true"],
    "dance": ["host.channels=32", "host.snake.channels=32", "host.snake.pooled=32"],
    "deepsnake": ["host.channels=32", "host.snake.channels=32", "host.snake.pooled=32"],
    "mask_rcnn": ["host.box_head.channels=64", "host.mask_head.channels=32"],
    "pointrend": ["host.box_head.channels=64", "host.coarse_head.channels=32", "host.point_head.channels=32"],
    "refinemask": ["host.box_head.channels=64", "host.refine_head.channels=32"],
}


def _run(*arguments: str, cwd: Path, processes: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(arguments, processes), cwd=cwd, env=_env(), capture_output=True, text=True, timeout=300
    )


def _command(arguments: tuple[str, ...], processes: int) -> list[str]:
    script = str(ROOT / "scripts" / "train.py")
    if not processes:
        return [sys.executable, script, *arguments]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*torchrun, script, *arguments]


def _env() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location("train_command", ROOT / "scripts" / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_folder_whose_name_is_no_text_is_refused(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """TensorBoard could not write there."""
    monkeypatch.chdir(tmp_path)
    out = os.fsdecode(b"caf\xe9")
    monkeypatch.setattr(sys, "argv", ["train.py", "--out", out, "--set", "train.device=cpu"])
    with pytest.raises(SystemExit) as left:
        script._cli.run(script.main)
    assert left.value.code == 2 and "a name that is not UTF-8; choose another" in capsys.readouterr().err
    assert not Path(out).exists()


def test_the_configuration_is_shown_without_a_run(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def shown(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["train.py", "--show-config", *arguments])
        assert script.main() == 0
        return capsys.readouterr().out

    text = shown("--model", "condinst", "--refine", "--set", "data.flip=0.25")
    assert "flip=0.25" in text and "sharpcontour.evolution: vertices=128" in text
    text = shown("--set", "data.shapes_size=512")
    assert "test_short_side=512 test_max_side=512" in " ".join(text.split())  # of drawn images, as they are
    assert not list(tmp_path.iterdir())


def test_weights_without_a_training_cannot_be_resumed(tmp_path: Path) -> None:
    torch.save({"model": {}, "config": {}, "categories": [], "step": 1}, tmp_path / "converted.pt")
    trainer: Any = SimpleNamespace(world=World(), folder=tmp_path / "run")
    train_set: Any = []
    with pytest.raises(
        InputError, match=r"no training to go on with; begin from them with --set train.init_from=.*pt$"
    ):
        begin(trainer, str(tmp_path / "converted.pt"), {}, train_set)


@pytest.mark.slow
def test_help_and_mistakes_from_another_folder(tmp_path: Path) -> None:
    shown = _run("--help", cwd=tmp_path)
    assert shown.returncode == 0
    for flag in ("--model", "--refine", "--data", "--root", "--recipe", "--set", "--out", "--resume", "--train-json"):
        assert flag in shown.stdout
    assert shown.stdout.count("default") >= 6
    for arguments, message in [
        (["--set", "train.itertions=3"], "error: --set train.itertions: no such key; nearest: train.iterations"),
        (["--data", "coco", "--root", "nowhere"], "nowhere"),
        (["--train-json", "a.json"], "error: your own data needs all four options"),
    ]:
        failed = _run(*arguments, "--out", str(tmp_path / "run"), cwd=tmp_path)
        assert failed.returncode == 2, failed.stderr
        assert message in failed.stderr and failed.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(name for name in MODELS if MODELS[name].finds))
def test_two_processes_train_evaluate_and_resume(model: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["--model", model, "--refine", "--out", str(out), "--set", *TINY, *TINY_HOSTS[model]]
    done = _run(*arguments, cwd=tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("training on the built-in shapes") and "--data coco" in done.stdout
    metrics = json.loads((out / "metrics.json").read_text())
    for kind in ("coarse", "refined"):
        assert {"AP", "AP50", "AP75"} <= set(metrics[kind]["segm"]) and "AP" in metrics[kind]["boundary"]
    assert metrics["images"] == 4 and metrics["seconds"]["total"] > 0
    assert json.loads((out / "config.json").read_text())["train"]["iterations"] == 3
    assert _steps(out) == [1, 2, 3, 3]
    assert list((out / "pictures").iterdir()) and list(out.glob("events*"))
    again = _run(*arguments, "train.iterations=4", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "resuming after step 3" in again.stdout and "written by 2 processes" in again.stdout
    assert "train.iterations: 3 -> 4" in again.stdout


@pytest.mark.slow
def test_sigterm_to_torchrun_saves(tmp_path: Path) -> None:
    """What a scheduler does: the whole group gets the signal, loader workers too."""
    output = _disturb(tmp_path, _command(_arguments(tmp_path, 100_000), 1), lambda pid: os.kill(pid, signal.SIGTERM))
    assert "stopped by a signal after step" in output, output
    saved = sorted((tmp_path / "run" / "checkpoints").glob("step_*.pt"))
    assert int(saved[-1].stem.removeprefix("step_")) == _steps(tmp_path / "run")[-1]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pgrep") is None, reason="needs pgrep")
def test_torchrun_starts_a_killed_process_again(tmp_path: Path) -> None:
    def kill_one(pid: int) -> None:
        children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True).stdout.split()
        os.kill(int(children[-1]), signal.SIGKILL)

    command = _command(_arguments(tmp_path, 20), 2)
    command.insert(command.index("--standalone"), "--max-restarts=1")
    output = _disturb(tmp_path, command, kill_one)
    assert "resuming after step" in output and "done:" in output, output
    assert _steps(tmp_path / "run")[:-1] == list(range(1, 21))  # and once more for the evaluation
    assert "bucket view" not in output  # what DDP says of weights of 1x1 convolutions is nothing to a user


def _arguments(folder: Path, iterations: int) -> tuple[str, ...]:
    last = (f"train.iterations={iterations}", "train.checkpoint_period=2")
    return ("--model", "dance", "--refine", "--out", str(folder / "run"), "--set", *TINY, *TINY_HOSTS["dance"], *last)


def _steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]


def _disturb(folder: Path, command: list[str], disturb: Callable[[int], None]) -> str:
    """Start a run, do something to it after some steps, and wait for its end; returns its output."""
    log = folder / "run" / "log.jsonl"
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=folder, env=_env(), **pipes)
    try:
        deadline = time.monotonic() + 600
        while not (log.exists() and log.read_text().count("\n") >= 5):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        disturb(process.pid)
        return str(process.communicate(timeout=600)[0])
    finally:
        process.kill()
