"""Section 3.1: contour evolution by eq. (1), x' = x + m s d.

Every vertex x marches along its normal d, outwards if it lies inside the object and inwards if outside, by m equal
steps of length s, until the classifier's verdict flips. The steps of all vertices of all contours are classified
together; those that no longer count are left out where that saves time (:mod:`sharpcontour.contours.asking`).

In the configuration lambda is ``ratio``, M is ``max_steps``, N is ``vertices`` and n is ``iterations``.
Shapes: R rings, N vertices, M steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpcontour.config import EvolutionConfig
from sharpcontour.contours.asking import Classifier, ask, steps_at_once
from sharpcontour.contours.geometry import outward_normals, resample

GAIN_SAMPLES = 8  # points along a move at which phi is asked for its gain
GAIN_NEIGHBOURS = 4  # vertices on either side whose gains are averaged


@dataclass
class Evolution:
    """The course of an evolution; a rule of one's own may leave all but ``steps`` empty.

    Attributes:
        steps: n + 1 tensors (R, N, 2), C(0) to C(n) in network-input pixels. With ``min_gain`` the vertices of the last
            one that gained too little are back where they were in C(0); the lists below tell of the march before it.
        sharpness: n tensors (R, N), |phi - 0.5| at the beginning of each iteration: what the paper calls the
            uncertainty of phi, large where phi is sure.
        active: n tensors (R, N) bool, the vertices that took part in each iteration.
        flipped: n tensors (R, N) bool, those of them that reached a flipping point.
        moves: n tensors (R, N) int64, m of each vertex, 0 where it took no part.
    """

    steps: list[Tensor]
    sharpness: list[Tensor] = field(default_factory=list)
    active: list[Tensor] = field(default_factory=list)
    flipped: list[Tensor] = field(default_factory=list)
    moves: list[Tensor] = field(default_factory=list)


PhiAt = Callable[[Tensor, Tensor], Tensor]
"""phi (R, N, S) at points (R, N, S, 2) of vertices that are wanted, (R, N) bool; see :func:`ask`."""


def displaced(x: Tensor, m: Tensor, s: Tensor, d: Tensor) -> Tensor:
    """Eq. (1): vertices x (..., 2) after m (...) steps of length s (...) in the directions d (..., 2)."""
    m, s = m[..., None], s[..., None]
    return x + m * s * d


def direction(phi: Tensor, outwards: Tensor) -> Tensor:
    """Directions d (R, N, 2) of vertices: their normals (R, N, 2), turned inwards where phi (R, N) says outside."""
    # Section 3.2: phi is 1 outside, and exactly 0.5 is inside.
    return torch.where(phi[..., None] > 0.5, -outwards, outwards)


def step_length(phi: Tensor, area: Tensor, config: EvolutionConfig) -> Tensor:
    """Step lengths s = lambda sqrt(A) |phi - 0.5| of vertices (R, N) in pixels, fixed for an iteration (section 3.1).

    Paper silent on "w/o adaptive step" (Table 5): the factor is its maximum 0.5, so that the longest step stays the
    same.
    """
    sharpness = (phi - 0.5).abs() if config.adaptive_step else torch.full_like(phi, 0.5)
    return config.ratio * area.sqrt()[:, None] * sharpness


def _march(
    x: Tensor, d: Tensor, s: Tensor, phi: Tensor, active: Tensor, phi_at: PhiAt, max_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """How far the active vertices go: m (R, N) int64, the moves up to the flipping point, or M without one.

    Returns:
        m, 0 where a vertex takes no part; whether there was a flipping point (R, N); and phi after 0 to M moves
        (R, N, M + 1), of which only 0 to m mean anything.
    """
    path, flips, undecided = [phi[..., None]], [], active
    for count in torch.arange(1, max_steps + 1, device=x.device).split(steps_at_once(x, max_steps)):
        ahead = phi_at(displaced(x[:, :, None], count, s[:, :, None], d[:, :, None]), undecided)
        flip = undecided[..., None] & ((ahead > 0.5) != (phi > 0.5)[..., None])
        undecided = undecided & ~flip.any(-1)
        path.append(ahead)
        flips.append(flip)
    flipped = active & ~undecided
    first = torch.cat(flips, -1).float().argmax(-1) + 1
    return torch.where(flipped, first, max_steps) * active, flipped, torch.cat(path, -1)


def _crossing(path: Tensor, moves: Tensor, flipped: Tensor) -> Tensor:
    """m (R, N) to where phi crosses 0.5 within the last step before a flip, by linear interpolation."""
    after = path.gather(-1, moves[..., None])[..., 0]
    before = path.gather(-1, (moves[..., None] - 1).clamp(min=0))[..., 0]
    gap = before - after
    share = ((before - 0.5) / torch.where(gap == 0, 1.0, gap)).clamp(0, 1)
    return torch.where(flipped, moves - 1 + share, moves)


def evolve(
    vertices: Tensor,
    hole: Tensor,
    area: Tensor,
    limits: Tensor,
    classify: Classifier,
    config: EvolutionConfig,
) -> Evolution:
    """Run n iterations of eq. (1).

    Args:
        vertices: (R, N, 2) initial contours C(0), x, y in network-input pixels.
        hole: (R,) bool; out of the object means into the ring of a hole.
        area: (R,) A, the area of each instance's box in square pixels.
        limits: (R, 2) width and height of each ring's image before padding. Paper silent: vertices are clamped to it
            after each iteration, for no object goes on beyond it.
        classify: logits of phi at points of some of the rings.
        config: lambda, M, n and the switches of Tables 5, 7 and 8.
    """
    course = Evolution([vertices])
    frozen = known = torch.zeros(vertices.shape[:2], dtype=torch.bool, device=vertices.device)
    phi = vertices.new_zeros(vertices.shape[:2])
    away = torch.where(hole, -1.0, 1.0)[:, None, None]

    def phi_at(points: Tensor, wanted: Tensor) -> Tensor:
        return (ask(classify, points, wanted) / config.temperature).sigmoid()

    for _ in range(config.iterations):
        x = course.steps[-1]
        if config.resample_iterations and len(course.steps) > 1:
            # The vertices are others now, so none of them has been seen to flip.
            x, frozen, known = resample(x, x.shape[1]), torch.zeros_like(frozen), torch.zeros_like(known)
        normals = outward_normals(x, config.normal_window) * away
        phi = torch.where(known, phi, phi_at(x[:, :, None], ~known)[..., 0])
        d = direction(phi, normals)
        s = step_length(phi, area, config)
        active = ~frozen & ((phi - 0.5).abs() > config.margin) if config.margin else ~frozen
        moves, flipped, path = _march(x, d, s, phi, active, phi_at, config.max_steps)
        m = _crossing(path, moves, flipped) if config.interpolate_flip else moves
        moved = displaced(x, m, s, d).clamp(min=0).minimum(limits[:, None])
        if config.freeze:
            frozen = frozen | flipped
        course.steps.append(moved)
        course.sharpness.append((phi - 0.5).abs())
        course.active.append(active)
        course.flipped.append(flipped)
        course.moves.append(moves)
        # Most vertices end where phi has been asked, at a step of their march or where they were.
        known = (moved == displaced(x, moves, s, d)).all(-1)
        phi = path.gather(-1, moves[..., None])[..., 0]
    if config.min_gain and config.iterations:
        outwards = outward_normals(vertices, config.normal_window) * away
        course.steps[-1] = _take_back(vertices, course.steps[-1], outwards, area, classify, config)
    return course


def _take_back(
    start: Tensor, end: Tensor, outwards: Tensor, area: Tensor, classify: Classifier, config: EvolutionConfig
) -> Tensor:
    """The vertices at ``end`` (R, N, 2), and at ``start`` where too little is gained by the whole way from there.

    Not in the paper. The gain that counts is ``min_gain`` times sqrt(A).
    """
    gain = neighbourly(expected_gain(start, end, outwards, classify))
    worthwhile = gain > config.min_gain * area.sqrt()[:, None]
    return torch.where(worthwhile[..., None], end, start)


def expected_gain(start: Tensor, end: Tensor, outwards: Tensor, classify: Classifier) -> Tensor:
    """By how much the moves of vertices bring them closer to the boundary, as far as phi can tell, in pixels: (R, N).

    Not in the paper. Where phi is the probability of lying outside, a step towards the inside comes closer to the
    boundary with probability phi and goes away from it otherwise: the gain of a whole move is the integral of 2 phi - 1
    along it (its negative for a move outwards).

    Args:
        start, end: (R, N, 2) vertices before and after, in the pixels that ``classify`` takes.
        outwards: (R, N, 2) directions out of the object at ``start``.
        classify: logits of phi at points (R, Q, 2).
    """
    rings, n = start.shape[:2]
    share = (torch.arange(GAIN_SAMPLES, device=start.device) + 0.5) / GAIN_SAMPLES
    move = end - start
    path = start[:, :, None] + share[:, None] * move[:, :, None]
    phi = classify(path.flatten(1, 2)).sigmoid().view(rings, n, GAIN_SAMPLES)
    return -(move * outwards).sum(-1).sign() * move.norm(dim=-1) * (2 * phi - 1).mean(-1)


def neighbourly(values: Tensor) -> Tensor:
    """Values (R, N) of vertices, averaged with those of their neighbours along the ring."""
    n = values.shape[1]
    around = min(GAIN_NEIGHBOURS, (n - 1) // 2)
    padded = torch.cat([values[:, n - around :], values, values[:, :around]], 1)
    return F.avg_pool1d(padded[:, None], 2 * around + 1, stride=1)[:, 0]


EvolutionRule = Callable[[Tensor, Tensor, Tensor, Tensor, Classifier, EvolutionConfig], Evolution]
"""What moves contours: :func:`evolve`, or a function of one's own with the same arguments."""
