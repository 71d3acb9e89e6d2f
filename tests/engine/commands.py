"""scripts/train.py in this process: what it prints, without the seconds that another process takes to import torch."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def train(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Run the command; its standard output. An InputError passes through."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    spec = importlib.util.spec_from_file_location("train_command", SCRIPTS / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert module.main() == 0
    return told.getvalue()
