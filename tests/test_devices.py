"""Nothing is made for one device or one system only: a run on another one works, or is refused in a line."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models import build_model
from sharpcontour import SharpContourConfig
from sharpcontour.errors import InputError
from sharpcontour.io.command_line import run
from sharpcontour.io.device import choose_device
from tests.models.helpers import TINY, confident, drawn, prepared

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("sharpcontour", "data", "models", "eval", "engine", "scripts")
POSIX = {"resource", "fcntl", "pwd", "grp", "termios", "posix"}  # modules that Windows lacks


def _sources() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def test_no_file_needs_posix_to_be_imported() -> None:
    for path in _sources():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # those inside functions are guarded there
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not POSIX & set(names), f"{path.relative_to(ROOT)}, line {node.lineno}: imports {names}"


def test_autocast_follows_the_device_of_the_tensors() -> None:
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "autocast":
                named = isinstance(node.args[0], ast.Constant)
                assert not named, f"{path.relative_to(ROOT)}, line {node.lineno}: autocast of one kind of device"


class _DoublePrecision(TorchDispatchMode):
    """Remembers the operations that give float64, which Apple's GPU does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if _has_float64(result):
            self.seen.add(str(function))
        return result


def _has_float64(values: Any) -> bool:
    return any(isinstance(value, torch.Tensor) and value.dtype == torch.float64 for value in tree_leaves(values))


@pytest.mark.parametrize("name", sorted(TINY))
def test_nothing_on_the_device_is_float64(name: str) -> None:
    model = build_model(TINY[name](), 2, SharpContourConfig())
    images, targets = prepared(model, 1, 2)
    assert not _has_float64([value for target in targets for value in target.values()])
    with _DoublePrecision() as training:
        losses = model(images, targets)
        torch.stack([value for key, value in losses.items() if key.startswith("loss")]).sum().backward()
    host = build_model(confident(name), 2).eval()
    with _DoublePrecision() as detection:
        assert len(host([drawn(0, 2)[0]])[0])
    assert training.seen == detection.seen == set()


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, told in (
        ("mps", "device mps: this machine has no Apple GPU that torch can use; choose cpu, or auto"),
        ("cuda", "device cuda: this machine has no CUDA device that torch can use; choose cpu, or auto"),
        ("xpu", "device xpu: this machine has none that torch can use; choose cpu, or auto"),
        ("gpu", "device gpu: torch knows none of this name; choose auto, cuda, mps, cpu"),
    ):
        with pytest.raises(InputError, match=f"^{told}$"):
            choose_device(name)
    assert choose_device("auto") == choose_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match="go up to cuda:1"):
        choose_device("cuda:2")


@pytest.mark.parametrize(
    ("message", "code", "told"),
    [
        ("The operator 'aten::grid_sampler_2d_backward' is not currently implemented for the MPS device.", 2, "cpu"),
        ("a method of the project's own", 1, "Traceback"),
    ],
)
def test_a_device_that_lacks_an_operation_is_refused_in_a_line(
    message: str, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise NotImplementedError(message)

    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # the command has one of its own
    with pytest.raises(SystemExit) as left:
        run(main)
    shown = capsys.readouterr().err
    assert left.value.code == code and told in shown
    assert code == 1 or shown.count("\n") == 1
