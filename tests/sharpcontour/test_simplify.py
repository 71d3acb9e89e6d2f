"""Outlines with fewer vertices: as near as was asked for, with all holes and parts, and without crossings."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from sharpcontour.contours.geometry import self_crossing
from sharpcontour.contours.nesting import nesting, parts_of
from sharpcontour.contours.simplify import simplified
from sharpcontour.contours.tracing import trace_mask

Ring = np.ndarray


def circle(x: float, y: float, radius: float, count: int = 400) -> Ring:
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], 1).astype(np.float32)


def farthest(old: Ring, new: Ring) -> float:
    """Of the old vertices from the new outline, measured edge by edge."""
    a, b = new.astype(float), np.roll(new, -1, 0).astype(float)
    along = b - a
    to = old[:, None].astype(float) - a
    part = np.clip((to * along).sum(2) / np.maximum((along**2).sum(1), 1e-12), 0, 1)
    return float(np.linalg.norm(to - part[..., None] * along, axis=2).min(1).max())


@pytest.mark.parametrize("tolerance", [0.25, 1.0, 4.0])
def test_no_vertex_is_farther_off_than_told(tolerance: float) -> None:
    blobs = cv2.GaussianBlur(np.random.default_rng(3).random((160, 200)), (0, 0), 6) > 0.5
    for rings in (trace_mask(blobs), [circle(90, 90, 60), circle(90, 90, 20)]):
        found = simplified(rings, tolerance)
        assert found.deviation <= tolerance and len(found.rings) == len(rings)
        measured = [farthest(old, new) for old, new in zip(rings, found.rings, strict=True)]
        # Another edge than the one in its place may be nearer to a vertex, but not by much here.
        assert found.deviation / 2 <= max(measured) <= found.deviation + 1e-6
        assert (nesting(found.rings) == nesting(rings)).all()
        if tolerance >= 1 or len(rings) == 2:  # pixels' corners are farther apart than 0.25
            assert sum(map(len, found.rings)) < sum(map(len, rings)) * 0.8 and found.deviation > tolerance / 4
        for ring in found.rings:
            assert not self_crossing(torch.from_numpy(ring)[None].double()).any()


def test_a_straight_line_loses_its_vertices() -> None:
    side = np.linspace(0, 10, 11)[:-1]
    square = np.concatenate([np.c_[side, 0 * side], np.c_[0 * side + 10, side], np.c_[10 - side, 0 * side + 10]])
    found = simplified([np.concatenate([square, np.c_[0 * side, 10 - side]])], 0.01)
    assert found.rings[0].tolist() == [[0, 0], [10, 0], [10, 10], [0, 10]]
    assert found.deviation == 0 and found.kept == 0


def test_what_would_vanish_stays() -> None:
    rings = [circle(50, 50, 40), circle(50, 50, 1.5), circle(98, 50, 0.5)]
    found = simplified(rings, 5)
    assert found.kept == 2 and found.rings[1] is rings[1] and found.rings[2] is rings[2]
    assert len(found.rings[0]) < 12 and len(parts_of(found.rings)) == 2
    assert simplified([], 1).rings == []


def test_rings_that_would_cross_stay() -> None:
    """A hole near the outline: the chord of the outline would cut it."""
    rings = [circle(50, 50, 40), np.roll(circle(50, 50, 39.5), 25, 0)]
    found = simplified(rings, 4)
    assert found.kept >= 1 and (nesting(found.rings) == nesting(rings)).all()
    near = [circle(50, 50, 40), circle(50 + 38, 50, 1.5, 12)]
    found = simplified(near, 3.9)
    assert (nesting(found.rings) == nesting(near)).all() and found.rings[1] is near[1]
    assert found.deviation <= 3.9


def test_a_thin_bend_does_not_cross_itself() -> None:
    """Two sides of a bent strip, which is thinner than the tolerance."""
    outer, inner = circle(0, 0, 50)[:200], circle(0, 0, 49)[:200][::-1]
    strip = np.concatenate([outer, inner]) + 60
    found = simplified([strip], 3)
    assert not self_crossing(torch.from_numpy(found.rings[0])[None].double()).any()
