"""The refinement study, with a classifier that is always right and with nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from eval.diagnostics.probe import Probe
from eval.diagnostics.study import refinement_study
from tests.sharpcontour.test_refiner import make


def test_a_perfect_classifier_is_seen_as_such() -> None:
    model = make().eval()
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 10:38, 10:38] = True

    def exact(described: object, instance: Tensor, points: Tensor) -> Tensor:
        inside = ((points >= 10) & (points < 38)).all(-1)
        return torch.where(inside, -9.0, 9.0)

    model.refiner.classifier.forward = exact  # type: ignore[method-assign]
    sample = (torch.zeros(3, 64, 64, dtype=torch.uint8), mask, torch.zeros(1, dtype=torch.long))
    found = refinement_study(model, [sample])
    assert (found["detected"], found["all"]) == (1, 1)
    phi = found["phi"]
    assert phi["accuracy"] == dict.fromkeys(("0.5", "1", "2", "4", "8"), 1.0)
    assert phi["sharpness"]["1"] == pytest.approx(0.5, abs=1e-3)
    assert [one["outside"] for one in phi["calibration"]] == [0, 1]
    assert found["ideal28"][-1][0] > 99 and len(found["host"]) == 4
    for kind in ("noisy28", "smooth"):
        assert len(found[kind]) == 4 and found[kind][-1][0] > found[kind][0][0]


def test_objects_that_are_not_found_are_counted() -> None:
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 50:60, 50:60] = True
    sample = (torch.zeros(3, 64, 64, dtype=torch.uint8), mask, torch.zeros(1, dtype=torch.long))
    nothing = (sample[0], mask[:0], sample[2][:0])
    found = refinement_study(make().eval(), [sample, nothing])
    assert (found["all"], found["detected"]) == (1, 0) and "host" not in found and len(found["smooth"]) == 4


def test_calibration_counts_what_lies_outside() -> None:
    phi = np.array([0.05, 0.05, 0.05, 0.05, 0.95, 1.0, 0.5])
    outside = np.array([False, False, False, True, True, True, False])
    found = Probe(np.full(7, 1.0), phi, outside)
    rows = found.calibration(bins=10)
    assert [(row["count"], row["outside"]) for row in rows] == [(4, 0.25), (1, 0.0), (2, 1.0)]
    assert rows[2]["phi"] == pytest.approx(0.975)
    assert found.accuracy() == {"1": pytest.approx(6 / 7)}  # one half is inside
    gaps = [abs(0.05 - 0.25) * 4, 0.5, abs(0.975 - 1) * 2]
    assert found.calibration_error() == pytest.approx(sum(gaps) / 7)
    nothing = {"accuracy": {}, "sharpness": {}, "calibration": [], "calibration_error": 0.0}
    assert Probe.join([]).summary() == nothing
