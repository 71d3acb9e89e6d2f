"""Eq. (1) with a known phi: signs, limits, invariances, and the oracle study on real masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from data.degrade import noisy_roi, soft_roi
from eval.diagnostics.study import smoothed_contours, tight_box
from sharpcontour.config import EvolutionConfig, TracingConfig
from sharpcontour.contours.geometry import outward_normals, resample, self_crossing, signed_area
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.contours.tracing import contours_from_masks
from sharpcontour.contours.types import Contours
from sharpcontour.evolution import Evolution, evolve, expected_gain, neighbourly
from sharpcontour.statistics import EvolutionStatistics
from tests.sharpcontour import helpers

needs_coco = pytest.mark.skipif(not helpers.EVALGT.exists(), reason="the COCO annotations are not here")
CENTRE = torch.tensor([100.0, 100.0])


def circle(radius: float, n: int = 128) -> Tensor:
    angle = torch.arange(n) / n * 2 * torch.pi
    return (CENTRE + radius * torch.stack([angle.cos(), angle.sin()], -1))[None]


def disc(radius: float, sharpness: float = 1e4, hole: bool = False):
    """Logits of phi for a disc (or everything but a disc), (R, Q, 2) -> (R, Q)."""
    sign = -1.0 if hole else 1.0
    return lambda points, rings=None: sign * sharpness * ((points - CENTRE).norm(dim=-1) - radius)


def run(start: Tensor, classify, hole: bool = False, area: float = 10_000.0, **settings) -> Evolution:
    limits = torch.tensor([[200.0, 200.0]]).expand(len(start), 2)
    holes = torch.full((len(start),), hole)
    return evolve(start, holes, torch.full((len(start),), area), limits, classify, EvolutionConfig(**settings))


def radius_of(vertices: Tensor) -> Tensor:
    return (vertices - CENTRE).norm(dim=-1)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("hole", [False, True])
@pytest.mark.parametrize("start", [38.0, 42.0])
def test_vertices_move_to_the_boundary_from_both_sides(start: float, hole: bool, reverse: bool) -> None:
    contour = circle(start).flip(1) if reverse else circle(start)
    course = run(contour, disc(40.0, hole=hole), hole)
    # A step is 0.003 * 100 * 0.5 = 0.15 px; the vertex ends just past the boundary.
    past = (radius_of(course.steps[-1]) - 40.0) * (1 if start < 40 else -1)
    assert past.min() >= 0 and past.max() <= 0.16


@pytest.mark.parametrize("iterations", [3, 5])
def test_statistics_follow_the_course_whatever_its_iterations(iterations: int) -> None:
    course = run(torch.cat([circle(38.0), circle(30.0)]), disc(40.0), iterations=iterations)
    statistics = EvolutionStatistics()
    statistics.start()
    statistics.add(course, restored=[1])
    found = statistics.summary()
    assert found["contours"] == 2 and found["restored"] == 1
    for name, values in (("flip_share", course.flipped), ("sharpness", course.sharpness)):
        assert len(values) == iterations
        assert found[name] == pytest.approx([value.float().mean().item() for value in values])
    statistics.add(course, restored=[])
    assert statistics.summary()["sharpness"] == pytest.approx(found["sharpness"])


def test_step_size_is_the_papers() -> None:
    course = run(circle(30.0), disc(40.0, 0.05), iterations=1)
    phi = torch.sigmoid(torch.tensor(0.05 * -10.0))
    expected = 30.0 + 10 * 0.003 * 100 * abs(phi - 0.5)
    assert torch.allclose(radius_of(course.steps[1]), expected.expand(128), atol=1e-4)
    constant = run(circle(30.0), disc(40.0, 0.05), iterations=1, adaptive_step=False)
    assert torch.allclose(radius_of(constant.steps[1]), torch.tensor(31.5), atol=1e-4)


def test_moves_are_bounded_and_counted() -> None:
    course = run(circle(35.0), disc(40.0))
    for moves, active, flipped in zip(course.moves, course.active, course.flipped, strict=True):
        assert moves.max() <= 10 and (moves[~active] == 0).all() and (moves[active & ~flipped] == 10).all()


def test_frozen_vertices_stay() -> None:
    target = disc(40.0)
    wobbly = circle(39.5)
    wobbly[0, ::2] += (wobbly[0, ::2] - CENTRE) * -0.05  # every other vertex is out of one iteration's reach
    course = run(wobbly, target)
    for i in range(1, 3):
        still = ~course.active[i]
        assert still.any() and torch.equal(course.steps[i][still], course.steps[i + 1][still])
    unfrozen = run(wobbly, target, freeze=False)
    assert all(active.all() for active in unfrozen.active)


def test_phi_of_one_half_is_inside_and_does_not_move() -> None:
    course = run(circle(40.0), lambda points, rings=None: torch.zeros(points.shape[:2]))
    assert torch.equal(course.steps[-1], course.steps[0])


def test_interpolated_flip_ends_on_the_boundary() -> None:
    course = run(circle(39.0), disc(40.0, 2.0), interpolate_flip=True, ratio=0.012)
    assert (radius_of(course.steps[-1]) - 40).abs().max() < 0.02


@pytest.mark.parametrize("start", [39.0, 41.0])
def test_the_expected_gain_is_what_a_sure_phi_says(start: float) -> None:
    """The whole way where phi is sure of it, its negative the other way, nothing where phi knows nothing."""
    exact, begin, end = disc(40.0), circle(start), circle(40.0)
    outwards = outward_normals(begin, 2.0)
    assert (expected_gain(begin, end, outwards, exact) - 1).abs().max() < 1e-3
    assert (expected_gain(begin, circle(2 * start - 40), outwards, exact) + 1).abs().max() < 1e-3
    assert expected_gain(begin, end, outwards, disc(40.0, 0.0)).abs().max() == 0
    # phi of half the boundary's width: the mean of |2 phi - 1| along the move.
    logits = 0.5 * (torch.arange(4000) + 0.5) / 4000
    wanted = float((2 * logits.sigmoid() - 1).mean())
    assert (expected_gain(begin, end, outwards, disc(40.0, 0.5)) - wanted).abs().max() < 1e-3


def test_moves_that_gain_little_are_taken_back() -> None:
    contour = circle(38.0)
    sure, unsure = disc(40.0), disc(40.0, 0.02)
    assert torch.equal(run(contour, unsure, min_gain=0.002, ratio=0.02).steps[-1], contour)
    assert not torch.equal(run(contour, unsure, min_gain=0.0, ratio=0.02).steps[-1], contour)
    assert torch.equal(run(contour, sure, min_gain=0.002).steps[-1], run(contour, sure).steps[-1])
    # Half of the ring is right: the others move alone.
    half = torch.where(torch.arange(128)[None, :, None] < 64, contour, circle(40.0))
    moved = run(half, sure, min_gain=0.004).steps[-1]
    assert (radius_of(moved)[:, 8:56] > 39.5).all() and torch.equal(moved[:, 72:120], half[:, 72:120])


def test_gains_are_averaged_around_the_ring() -> None:
    values = torch.zeros(1, 20)
    values[0, 0] = 9.0
    assert neighbourly(values)[0].tolist() == [1.0] * 5 + [0.0] * 11 + [1.0] * 4
    assert neighbourly(values[:, :3])[0].tolist() == [3.0] * 3


def test_scale_invariance() -> None:
    small = run(circle(45.0) / 1.0, disc(48.0, 0.3), iterations=3)
    double = evolve(
        circle(45.0) * 2,
        torch.tensor([False]),
        torch.tensor([40_000.0]),
        torch.tensor([[400.0, 400.0]]),
        lambda points, rings=None: disc(48.0, 0.3)(points / 2),
        EvolutionConfig(),
    )
    assert torch.allclose(double.steps[-1], small.steps[-1] * 2, atol=1e-3)


def test_order_of_vertices_does_not_matter() -> None:
    start, classify = circle(37.0) + torch.tensor([1.5, -2.0]), disc(40.0, 3.0)
    plain = run(start, classify).steps[-1]
    rolled = run(start.roll(17, 1), classify).steps[-1].roll(-17, 1)
    turned = run(start.flip(1), classify).steps[-1].flip(1)
    assert torch.allclose(rolled, plain, atol=1e-4) and torch.allclose(turned, plain, atol=1e-4)


def test_a_low_temperature_makes_an_unsure_phi_march_farther() -> None:
    start = circle(44.0)
    unsure = run(start, disc(40.0, 0.02))
    sharper = run(start, disc(40.0, 0.02), temperature=0.01)
    same = run(start, disc(40.0, 2.0))
    assert torch.allclose(sharper.steps[-1], same.steps[-1], atol=1e-4)
    assert sharper.sharpness[0].mean() > 5 * unsure.sharpness[0].mean()
    assert (sharper.steps[-1] - CENTRE).norm(dim=-1).mean() < (unsure.steps[-1] - CENTRE).norm(dim=-1).mean() - 1


def test_vertices_stay_in_the_image() -> None:
    course = run(
        circle(99.0) + torch.tensor([3.0, 0.0]), lambda points, rings=None: torch.full(points.shape[:2], -9.0), area=9e6
    )
    assert course.steps[-1].min() >= 0 and course.steps[-1].max() <= 200


def test_no_contours_and_degenerate_ones() -> None:
    assert run(torch.zeros(0, 128, 2), disc(40.0)).steps[-1].shape == (0, 128, 2)
    course = run(torch.full((1, 128, 2), 50.0), disc(40.0))
    assert torch.isfinite(course.steps[-1]).all()


def test_resampling_spaces_vertices_evenly() -> None:
    uneven = torch.tensor([[[0.0, 0], [1, 0], [4, 0], [4, 4], [0, 4]]])
    even = resample(uneven, 8)
    assert torch.allclose(even[0], torch.tensor([[0.0, 0], [2, 0], [4, 0], [4, 2], [4, 4], [2, 4], [0, 4], [0, 2]]))
    course = run(circle(39.0), disc(40.0), resample_iterations=True)
    assert all(active.all() for active in course.active)


def test_normals_point_outwards_whichever_way_the_ring_runs() -> None:
    for ring in (circle(20.0), circle(20.0).flip(1)):
        normals = outward_normals(ring, 2.0)
        assert torch.allclose(normals, (ring - CENTRE) / 20.0, atol=1e-3)


def test_self_crossing() -> None:
    bow_tie = torch.tensor([[[0.0, 0], [4, 4], [4, 0], [0, 4]]])
    square = torch.tensor([[[0.0, 0], [4, 0], [4, 4], [0, 4]]])
    assert self_crossing(torch.cat([bow_tie, square])).tolist() == [True, False]
    assert signed_area(square).tolist() == [16.0]


def oracle_study(kind: str, masks: list[np.ndarray], **settings) -> tuple[np.ndarray, np.ndarray]:
    """Mean (IoU, Boundary IoU) of C(0) and C(n) with a perfect classifier."""
    boxes = np.stack([tight_box(mask) for mask in masks])
    rng, config = np.random.default_rng(1), EvolutionConfig(**settings)
    if kind == "binary":
        rois = np.stack([helpers.binary_roi(m, b) for m, b in zip(masks, boxes, strict=True)])
    else:
        soft = [soft_roi(m, b) for m, b in zip(masks, boxes, strict=True)]
        rois = np.stack([noisy_roi(s, rng) for s in soft])
    contours = contours_from_masks(rois.astype(np.float32), torch.from_numpy(boxes), config.vertices, TracingConfig())
    return helpers.score_evolution(contours, boxes, masks, config)


def mixed_sizes() -> list[np.ndarray]:
    """Small, medium and large objects as 3 : 6 : 7."""
    masks = helpers.coco_masks(600)
    groups = [[m for m in masks if low <= m.sum() < high] for low, high in ((64, 1024), (1024, 9216), (9216, 1e9))]
    return groups[0][:30] + groups[1][:60] + groups[2][:70]


@needs_coco
def test_oracle_on_ideal_28x28_masks() -> None:
    before, after = oracle_study("binary", helpers.coco_masks(400, min_area=1))
    assert before[0] == pytest.approx(0.966, abs=0.003)
    assert after[0] >= 0.9935 and after[1] >= 0.986


@needs_coco
def test_oracle_on_noisy_28x28_masks() -> None:
    masks = mixed_sizes()
    once = oracle_study("noisy", masks, iterations=1)[1]
    before, after = oracle_study("noisy", masks)
    assert (after > once).all() and (once > before).all()
    assert after[0] >= 0.984 and after[1] >= 0.968


@needs_coco
def test_oracle_on_smoothed_contours() -> None:
    masks = mixed_sizes()
    boxes = np.stack([tight_box(mask) for mask in masks])
    before, after = helpers.score_evolution(smoothed_contours(masks), boxes, masks, EvolutionConfig())
    assert before[0] < 0.94 and after[0] >= 0.985 and after[1] >= 0.97


@needs_coco
def test_reach_is_three_times_one_and_a_half_per_cent() -> None:
    masks = mixed_sizes()
    boxes = np.stack([tight_box(mask) for mask in masks])
    scores = {}
    for offset in (0.04, 0.06):
        grown = helpers.grown_contours(masks, boxes, offset)
        scores[offset] = helpers.score_evolution(grown, boxes, masks, EvolutionConfig())[1]
    assert scores[0.04][0] >= 0.98 and scores[0.04][1] >= 0.95
    assert scores[0.06][0] <= 0.93  # what lies beyond 4.5 % of sqrt(A) stays


def test_flips_need_a_sharp_phi() -> None:
    # With phi = sigmoid(d / tau) a vertex flips only if tau < M lambda sqrt(A) / 4 = 0.75 % of sqrt(A) (= 0.75 px).
    sharp = run(circle(39.5), disc(40.0, 1 / 0.5))
    soft = run(circle(39.5), disc(40.0, 1 / 1.0))
    assert sharp.flipped[0].all() and not any(flipped.any() for flipped in soft.flipped)


def test_contours_carry_what_was_not_refined() -> None:
    contours = Contours(circle(10.0), torch.tensor([1]), torch.tensor([False]), [[np.zeros((4, 2), np.float32)], []])
    objects = contours.rings()
    assert [len(rings) for rings in objects] == [1, 1]
    assert rings_to_masks(objects, 200, 200)[1].sum() > 300
