"""The comparison of two devices: none with itself, and what differs is seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eval.diagnostics.parity import _differences, compare_devices, drawn_on_the_cpu
from sharpcontour.detections import Detections


def test_a_device_agrees_with_itself() -> None:
    assert set(compare_devices("mask_rcnn", True, torch.device("cpu")).values()) == {0.0}


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


def found(*corners: float) -> Detections:
    boxes = torch.tensor([[x, 10.0, x + 20, 30] for x in corners])
    rings = [[np.array([[x, 10], [x + 20, 10], [x + 20, 30], [x, 30]], np.float32)] for x in corners]
    return Detections(boxes, torch.ones(len(corners)), torch.zeros(len(corners)).long(), rings, (64, 96))


def test_detections_are_compared_with_the_nearest() -> None:
    assert _differences(found(10, 50), found(50, 10)) == {"count": 0, "score": 0, "box": 0, "iou": 0}
    worse = _differences(found(10, 50), found(50, 12))
    assert worse["box"] == 2 and worse["iou"] == pytest.approx(1 - 18 / 22)
    assert _differences(found(10), found(10, 50))["count"] == 1
