"""Leaving out what does not count changes no contour, and is left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sharpcontour import ipc
from sharpcontour.config import EvolutionConfig, SharpContourConfig
from sharpcontour.contours import asking
from sharpcontour.contours.types import Contours
from sharpcontour.evolution import Evolution, evolve
from sharpcontour.host import RefinerInputs
from sharpcontour.refiner import SharpContour
from tests.sharpcontour.helpers import rings_around
from tests.waits import Waits

SETTINGS: list[dict[str, Any]] = [
    {},
    {"freeze": False},
    {"interpolate_flip": True, "margin": 0.05},
    {"resample_iterations": True},
    {"max_steps": 3, "iterations": 4, "temperature": 0.2},
    {"min_gain": 0.001, "ratio": 0.03},
]


class Waves:
    """A phi of every ring's own that changes sign often; it counts the points that it is asked about."""

    def __init__(self, rings: int, length: float = 9.0) -> None:
        generator = torch.Generator().manual_seed(rings)
        self.phase, self.length = 6 * torch.rand(rings, 2, generator=generator), length
        self.points: list[int] = []

    def __call__(self, points: Tensor, rings: Tensor | None = None) -> Tensor:
        phase = self.phase if rings is None else self.phase[rings]
        self.points.append(points.shape[0] * points.shape[1])
        return 3 * (points / self.length + phase[:, None]).sin().sum(-1) + 0.3


def run(classify: Any, rings: int, vertices: int, width: float = 190.0, **settings: Any) -> Evolution:
    """With the usual width some rings leave the image."""
    start = rings_around(rings, vertices)
    hole, area = torch.arange(rings) % 3 == 1, 4000 + 3000 * torch.arange(rings).float()
    limits = torch.tensor([[width, 300.0]]).expand(rings, 2)
    return evolve(start, hole, area, limits, classify, EvolutionConfig(**{"ratio": 0.015, **settings}))


def same(a: Evolution, b: Evolution) -> bool:
    names = ("steps", "sharpness", "active", "flipped", "moves")
    pairs = [(x, y) for name in names for x, y in zip(getattr(a, name), getattr(b, name), strict=True)]
    return all(x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("rings", "vertices"), [(7, 50), (1, 128), (0, 128)])
@pytest.mark.parametrize("few", [0, asking.FEW])
def test_what_is_left_out_changes_nothing(
    settings: dict[str, Any], rings: int, vertices: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "FEW", few)
    spared, whole = Waves(rings), Waves(rings)
    course = run(spared, rings, vertices, **settings)
    monkeypatch.setattr(asking, "sparing", lambda device: False)
    assert same(course, run(whole, rings, vertices, **settings))
    if rings == 7:
        assert sum(spared.points) <= sum(whole.points)
        assert 0.02 < course.flipped[0].float().mean() < 0.9 and (course.steps[1] == 190).any()


def test_frozen_vertices_are_not_classified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FEW", 0)
    classify = Waves(5, length=4.0)
    course = run(classify, 5, 128, width=1000.0)
    expected = [5 * 128]
    for active, flipped, moves in zip(course.active, course.flipped, course.moves, strict=True):
        undecided = active & ~(flipped & (moves <= asking.STEPS))
        expected += [asked(wanted) * asking.STEPS for wanted in (active, undecided)]
    assert classify.points == [count for count in expected if count]
    assert 0 < expected[4] < 0.8 * expected[1]


def asked(wanted: Tensor) -> int:
    """Points, the rows of every ring filled up; or all vertices, where that is no more."""
    rows = (wanted.sum(1) / asking.BLOCK).ceil().int() * asking.BLOCK
    return min(int(rows.sum()), wanted.numel())


def test_the_march_ends_when_all_have_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Waves(3, length=1e9)
    run(few, 3, 64, width=1000.0)
    assert few.points == [3 * 64, *[3 * 64 * 10] * 3]
    monkeypatch.setattr(asking, "FEW", 0)
    classify = Waves(3, length=1e9)  # one sign everywhere: no vertex ever flips
    run(classify, 3, 64, width=1000.0)
    assert classify.points == [3 * 64, *[3 * 64 * asking.STEPS] * 6]
    still = Waves(3)
    course = run(still, 3, 64, width=1000.0, margin=0.5)  # none is as sure as that, so none takes part
    assert still.points == [3 * 64] and torch.equal(course.steps[-1], course.steps[0])


def test_elsewhere_than_on_a_cpu_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with Waits() as waits:
        run(Waves(4), 4, 50)
    assert waits.found
    assert (
        not asking.sparing(torch.device("cuda"))
        and asking.steps_at_once(torch.zeros(1000, 128, 2, device="meta"), 10) == 10
    )
    monkeypatch.setattr(asking, "sparing", lambda device: False)
    for settings in SETTINGS:
        with Waits() as waits:
            run(Waves(4), 4, 50, **settings)
        assert not waits.found


def test_parts_that_fit_the_cache_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    refiner = SharpContour(SharpContourConfig(), 8, (8, 3, 3)).eval()
    for parameter in refiner.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    start = rings_around(12, 128)
    boxes = torch.cat([start.amin(1), start.amax(1)], 1)
    inputs = RefinerInputs(
        torch.randn(1, 8, 60, 60),
        4,
        boxes,
        torch.zeros(12, dtype=torch.int64),
        torch.randn(12, 8, 3, 3),
        [(240, 240)],
        contours=Contours.from_polygons(start),
    )
    with torch.no_grad():
        parts = refiner.refine(inputs)
        monkeypatch.setitem(ipc.POINTS_AT_ONCE, "cpu", 1 << 30)
        monkeypatch.setattr(asking, "sparing", lambda device: False)
        whole = refiner.refine(inputs)
    assert sum(int(flipped.sum()) for flipped in whole.flipped) > 100
    for one, other in zip(parts.steps, whole.steps, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
