"""Section 3.1: contour evolution, x' = x + m s d (eq. 1).

Every vertex marches along its normal, outwards if it lies inside the object and inwards if outside, by equal steps,
until the classifier's verdict flips. All steps of all vertices of all contours are classified in one batch.

Shapes: R rings, N vertices, M steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sharpcontour.config import EvolutionConfig
from sharpcontour.contours.geometry import outward_normals, resample

Classifier = Callable[[Tensor], Tensor]
"""Points (R, Q, 2) in network-input pixels -> logits of phi (R, Q): positive outside the object of ring r."""


@dataclass
class Evolution:
    """The course of an evolution.

    Attributes:
        steps: n + 1 tensors (R, N, 2), C(0) to C(n).
        sharpness: n tensors (R, N), |phi - 0.5| at the beginning of each iteration: what the paper calls the
            uncertainty of phi, large where phi is sure.
        active: n tensors (R, N) bool, the vertices that took part in each iteration.
        flipped: n tensors (R, N) bool, those of them that reached a flipping point.
        moves: n tensors (R, N) int64, m of each vertex, 0 where it took no part.
    """

    steps: list[Tensor]
    sharpness: list[Tensor]
    active: list[Tensor]
    flipped: list[Tensor]
    moves: list[Tensor]


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
        limits: (R, 2) width and height of each ring's image before padding; vertices are clamped to it.
        classify: logits of phi at points (R, Q, 2).
        config: lambda, M, n and the switches of Tables 5, 7 and 8.
    """
    course = Evolution([vertices], [], [], [], [])
    frozen = torch.zeros(vertices.shape[:2], dtype=torch.bool, device=vertices.device)
    away = torch.where(hole, -1.0, 1.0)[:, None, None]
    for _ in range(config.iterations):
        start = course.steps[-1]
        if config.resample_iterations and len(course.steps) > 1:
            # The vertices are others now, so none of them has been seen to flip.
            start, frozen = resample(start, start.shape[1]), torch.zeros_like(frozen)
        normals = outward_normals(start, config.normal_window) * away
        phi = classify(start).sigmoid()
        offset, flip, moves = _march(start, normals, phi, area, classify, config)
        active = ~frozen
        moved = torch.where(active[..., None], start + offset, start)
        moved = moved.clamp(min=0).minimum(limits[:, None])
        if config.freeze:
            frozen = frozen | (flip & active)
        course.steps.append(moved)
        course.sharpness.append((phi - 0.5).abs())
        course.active.append(active)
        course.flipped.append(flip & active)
        course.moves.append(moves * active)
    return course


def _march(
    start: Tensor, normals: Tensor, phi: Tensor, area: Tensor, classify: Classifier, config: EvolutionConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """One iteration: offset m s d (R, N, 2), whether a flipping point was reached (R, N), and m (R, N)."""
    rings, n = phi.shape
    outside = phi > 0.5  # section 3.2: exactly 0.5 is inside
    direction = torch.where(outside[..., None], -normals, normals)
    # Section 3.1: s = lambda sqrt(A) |phi - 0.5|, fixed for the iteration. Paper silent on "w/o adaptive step"
    # (Table 5): the factor is its maximum 0.5, so that the longest step stays the same.
    factor = (phi - 0.5).abs() if config.adaptive_step else torch.full_like(phi, 0.5)
    step = (config.ratio * area.sqrt()[:, None] * factor)[..., None] * direction
    count = torch.arange(1, config.max_steps + 1, device=start.device)
    candidates = start[:, :, None] + count[:, None] * step[:, :, None]
    ahead = classify(candidates.flatten(1, 2)).sigmoid().view(rings, n, config.max_steps)
    flips = (ahead > 0.5) != outside[..., None]
    flip = flips.any(-1)
    # m counts the moves up to the flipping point; without one, m = M (section 3.1).
    moves = torch.where(flip, flips.float().argmax(-1) + 1, config.max_steps)
    travel = moves.to(phi.dtype)
    if config.interpolate_flip:
        travel = torch.where(flip, travel - 1 + _crossing(phi, ahead, moves), travel)
    return travel[..., None] * step, flip, moves


def _crossing(phi: Tensor, ahead: Tensor, moves: Tensor) -> Tensor:
    """(R, N) in [0, 1]: where phi crosses 0.5 within the last step, by linear interpolation."""
    path = torch.cat([phi[..., None], ahead], -1)
    after = path.gather(-1, moves[..., None])[..., 0]
    before = path.gather(-1, moves[..., None] - 1)[..., 0]
    gap = before - after
    return ((before - 0.5) / torch.where(gap == 0, 1.0, gap)).clamp(0, 1)
