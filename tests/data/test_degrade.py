"""Masks made worse: every kind spoils a mask as it says, none loses it."""

from __future__ import annotations

import numpy as np
import pytest

from data.degrade import KINDS, SHARES, degrade, draw_kind


def blob() -> np.ndarray:
    """A disc with a square bay, 120 pixels wide."""
    y, x = np.mgrid[:200, :220]
    mask = np.hypot(x - 100, y - 90) < 60
    mask[80:100, 130:170] = False
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_spoils_more_when_stronger_and_keeps_the_object(kind: str) -> None:
    mask = blob()
    mild, usual = (
        np.mean([iou(mask, degrade(mask, kind, strength, np.random.default_rng(k))) for k in range(6)])
        for strength in (0.2, 1.0)
    )
    assert 0.75 < usual <= mild + 0.003
    assert mild > 0.93
    assert (usual == 1) == (kind == "as_given")
    worse = degrade(mask, kind, 1.0, np.random.default_rng(0))
    assert worse.dtype == bool and worse.shape == mask.shape and np.array_equal(mask, blob())


@pytest.mark.parametrize("kind", KINDS)
def test_small_thin_empty_and_full_masks(kind: str) -> None:
    rng = np.random.default_rng(0)
    for rows, columns in ((slice(5, 6), slice(7, 8)), (slice(3, 4), slice(2, 30)), (slice(0, 40), slice(0, 50))):
        mask = np.zeros((40, 50), bool)
        mask[rows, columns] = True
        for strength in (0.2, 1.0, 2.0):
            assert degrade(mask, kind, strength, rng).any()
    empty = np.zeros((40, 50), bool)
    assert degrade(empty, kind, 1.0, rng) is empty


def test_training_sees_every_kind_and_good_masks_often() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_kind(rng) for _ in range(2000)]
    counts = {kind: sum(name == kind for name, _ in drawn) for kind in KINDS}
    assert set(SHARES) == set(KINDS) and sum(SHARES.values()) == 100
    assert min(counts.values()) > 10 and counts["as_given"] > 300
    strengths = [strength for _, strength in drawn]
    assert min(strengths) < 0.3 and max(strengths) > 1.9
