"""The comparison of two devices: what differs is seen, see also tests/test_other_device.py."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.diagnostics.parity import DRAWS, _differences, drawn_on_the_cpu
from sharpcontour.detections import Detections

ROOT = Path(__file__).resolve().parents[2]


def test_random_numbers_come_from_the_cpu() -> None:
    usual = torch.rand
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with drawn_on_the_cpu():
        drawn = torch.rand(3, device="meta")  # a device of no numbers: they would not be drawn there
        torch.manual_seed(1)
        assert torch.equal(torch.rand(3), expected)
    assert drawn.device.type == "meta" and torch.rand is usual


def test_every_draw_of_the_models_is_known() -> None:
    """One that is not would give two devices other numbers, and all later ones too."""
    used: set[str] = set()
    for folder in ("models", "sharpcontour"):
        for path in (ROOT / folder).rglob("*.py"):
            used |= set(
                re.findall(r"torch\.(rand\w*|bernoulli|multinomial|normal)\(", path.read_text(encoding="utf-8"))
            )
    assert used and used <= set(DRAWS)


def test_numbers_that_json_lacks_are_written_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr("eval.diagnostics.device_check.parity", lambda *_: ({"loss": float("nan")}, ["loss nan"]))
    monkeypatch.setattr("eval.diagnostics.device_check.waits", lambda *_: 1 / 0)
    arguments = ["check_gpu.py", "--device", "cpu", "--parts", "parity", "waits", "--json", str(tmp_path / "g.json")]
    monkeypatch.setattr("sys.argv", arguments)
    assert importlib.import_module("check_gpu").main() == 1
    told = json.loads((tmp_path / "g.json").read_text())
    assert told["parity"] == {"loss": "nan"} and "ZeroDivisionError" in told["waits"]
    assert told["failed"] == ["parity: loss nan", "waits: ZeroDivisionError: division by zero"]


def found(*corners: float) -> Detections:
    boxes = torch.tensor([[x, 10.0, x + 20, 30] for x in corners])
    rings = [[np.array([[x, 10], [x + 20, 10], [x + 20, 30], [x, 30]], np.float32)] for x in corners]
    return Detections(boxes, torch.ones(len(corners)), torch.zeros(len(corners)).long(), rings, (64, 96))


def test_detections_are_compared_with_the_nearest() -> None:
    assert _differences(found(10, 50), found(50, 10)) == {"count": 0, "score": 0, "box": 0, "iou": 0}
    worse = _differences(found(10, 50), found(50, 12))
    assert worse["box"] == 2 and worse["iou"] == pytest.approx(1 - 18 / 22)
    assert _differences(found(10), found(10, 50))["count"] == 1
