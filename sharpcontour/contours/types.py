"""Contours: rings of one object, and the rings of many instances as one tensor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Ring = np.ndarray  # (n, 2) float32 x, y, implicitly closed, no repeated first vertex
Rings = list[Ring]  # one object: outer rings and holes, combined by the even-odd rule


@dataclass
class Contours:
    """The rings of K instances as one tensor, ready to evolve.

    Attributes:
        vertices: (R, N, 2) float32 x, y in network-input pixels.
        instance: (R,) int64, the instance 0..K-1 of each ring, ascending.
        hole: (R,) bool, True where the ring bounds a hole.
        carried: K lists of rings (numpy, same pixels) that are too small to refine and pass through unchanged.
        outlines: R rings that ``vertices`` are evenly spaced points of, where displacements are carried back to them
            (:func:`sharpcontour.contours.carry.carried_back`); else empty.
    """

    vertices: Tensor
    instance: Tensor
    hole: Tensor
    carried: list[Rings] = field(default_factory=list)
    outlines: list[Ring] = field(default_factory=list)

    @classmethod
    def from_polygons(cls, vertices: Tensor) -> Contours:
        """One outer ring for each instance: the contours of a contour-based host, (K, N, 2)."""
        import torch  # here: rings alone are numpy, and read without torch

        k = len(vertices)
        return cls(
            vertices,
            torch.arange(k, device=vertices.device),
            torch.zeros(k, dtype=torch.bool, device=vertices.device),
            [[] for _ in range(k)],
        )

    def to(self, device: torch.device) -> Contours:
        """These contours on a device; what is numpy stays where it is."""
        on_device = (self.vertices.to(device), self.instance.to(device), self.hole.to(device))
        return Contours(*on_device, self.carried, self.outlines)

    def select(self, chosen: Tensor) -> Contours:
        """The contours of the instances ``chosen`` (K',) int64, in that order; one may come several times."""
        instance, rows = (self.instance == chosen[:, None]).nonzero().unbind(1)
        outlines = [self.outlines[row] for row in rows.tolist()] if self.outlines else []
        carried = [self.carried[k] for k in chosen.tolist()]
        return Contours(self.vertices[rows], instance, self.hole[rows], carried, outlines)

    def rings(self) -> list[Rings]:
        """K lists of rings (numpy), refined and carried ones together, on the CPU."""
        objects = [list(rings) for rings in self.carried]
        instance, vertices = self.instance.tolist(), self.vertices.detach().float().cpu().numpy()
        for k, ring in zip(instance, vertices, strict=True):
            objects[k].append(ring)
        return objects
