"""The evolution of one given mask, with all that it went by: phi at any point, directions, steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sharpcontour.anymask.foreign_masks import read_masks
from sharpcontour.anymask.network import SIDE
from sharpcontour.anymask.refiner import MaskRefiner
from sharpcontour.anymask.windows import windows_around
from sharpcontour.config import EvolutionConfig
from sharpcontour.contours.asking import Classifier
from sharpcontour.contours.geometry import outward_normals
from sharpcontour.contours.types import Rings
from sharpcontour.errors import InputError
from sharpcontour.evolution import Evolution, direction, displaced, step_length
from sharpcontour.refiner import SharpContour


@dataclass
class Iteration:
    """What one iteration of the evolution began with, and how far its vertices went.

    Shapes: R rings, N vertices; lengths in pixels of the window.

    Attributes:
        x: (R, N, 2), where the vertices were.
        outwards: (R, N, 2), their normals out of the object.
        phi: (R, N), at x.
        d: (R, N, 2), directions.
        s: (R, N), step lengths.
        m: (R, N) int64, numbers of steps; 0 where a vertex took no part.
        active, flipped: (R, N) bool, which vertices took part, and which of them reached a flipping point.
    """

    x: Tensor
    outwards: Tensor
    phi: Tensor
    d: Tensor
    s: Tensor
    m: Tensor
    active: Tensor
    flipped: Tensor

    def walk(self, ring: int, vertex: int) -> Tensor:
        """The places (m + 1, 2) where one vertex was asked on its march, the one that it began at among them."""
        count = torch.arange(int(self.m[ring, vertex]) + 1)
        at = ring, vertex
        return displaced(self.x[at], count, self.s[at].expand(len(count)), self.d[at])


@dataclass
class Followed:
    """The evolution of one object on an image.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        window: (4,) xyxy, the square of the image that the refiner saw, in pixels of the image.
        config: the settings it was moved by.
        course: the evolution, in pixels of the window.
        hole: (R,) bool, which rings are holes.
        area: (R,), of the boxes that steps are scaled by, in square pixels of the window.
        classify: gives the logits of phi at points of the window.
    """

    image: np.ndarray
    window: np.ndarray
    config: EvolutionConfig
    course: Evolution
    hole: Tensor
    area: Tensor
    classify: Classifier

    @torch.inference_mode()
    def phi(self, points: Tensor) -> Tensor:
        """Phi at points (..., 2) of the window."""
        logits = self.classify(points.reshape(1, -1, 2), torch.zeros(1, dtype=torch.int64))
        return (logits / self.config.temperature).sigmoid().view(points.shape[:-1])

    def iteration(self, number: int) -> Iteration:
        """Number 0 leads from C(0) to C(1)."""
        course, x = self.course, self.course.steps[number]
        outwards = outward_normals(x, self.config.normal_window) * torch.where(self.hole, -1.0, 1.0)[:, None, None]
        phi = self.phi(x)
        d, s = direction(phi, outwards), step_length(phi, self.area, self.config)
        taken = course.moves[number], course.active[number], course.flipped[number]
        return Iteration(x, outwards, phi, d, s, *taken)

    def in_image(self, points: Tensor) -> np.ndarray:
        """Points (..., 2) of the window in pixels of the image."""
        return points.numpy() / self.scale + self.window[:2]

    @property
    def scale(self) -> float:
        """Pixels of the window to one of the image."""
        return SIDE / float(self.window[2] - self.window[0])

    def rings(self, number: int) -> Rings:
        """C(number) in pixels of the image."""
        return list(self.in_image(self.course.steps[number]).astype(np.float32))


def follow(refiner: MaskRefiner, image: np.ndarray, mask: np.ndarray, config: EvolutionConfig) -> Followed:
    """Refine a mask by settings of the evolution, and keep what the evolution was given and what came of it.

    Args:
        refiner: on the CPU; it is afterwards as it was.
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool.
        config: of the evolution, without ``resample_iterations``, which makes vertices others.

    Raises:
        InputError: where the mask is too small to be refined.
    """
    found: list[Followed] = []
    boxes = read_masks([mask], image.shape[0], image.shape[1]).boxes().numpy().astype(np.float64)
    module = refiner.model.refiner
    evolve = module.evolve

    def kept(
        vertices: Tensor, hole: Tensor, area: Tensor, limits: Tensor, classify: Classifier, config: EvolutionConfig
    ) -> Evolution:
        course = evolve(vertices, hole, area, limits, classify, config)
        found.append(Followed(image, windows_around(boxes)[0], config, course, hole, area, classify))
        return course

    with _changed(module, config):
        module.evolve = kept
        refiner.refine(image, [mask])
    if not found:
        raise InputError("the mask is empty or too small to be refined")
    return found[0]


@contextmanager
def _changed(module: SharpContour, config: EvolutionConfig) -> Iterator[None]:
    """A refiner with other settings of the evolution, and as it was afterwards."""
    before = module.config, module.evolve
    module.config = replace(module.config, evolution=config)
    try:
        yield
    finally:
        module.config, module.evolve = before
