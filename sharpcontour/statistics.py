"""What tells whether an evolution is healthy: sharpness of phi, flips, self-crossings, contours put back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sharpcontour.contours.geometry import self_crossing
from sharpcontour.evolution import Evolution


class EvolutionStatistics:
    """Sums over all contours since :meth:`reset`. Collects nothing until ``enabled``: self-crossings cost time."""

    def __init__(self, iterations: int) -> None:
        self.iterations, self.enabled = iterations, False
        self.reset()

    def reset(self) -> None:
        self.contours, self.restored = 0, 0
        self._sums: Tensor | None = None

    def add(self, course: Evolution, restored: list[int]) -> None:
        """Count one evolution; ``restored`` are the instances that kept their coarse contour."""
        if not self.enabled:
            return
        self.restored += len(restored)
        self.contours += len(course.steps[0])
        rows = [share.float().mean(1).sum() for share in course.flipped + course.sharpness]
        rows += [self_crossing(contour).float().sum() for contour in (course.steps[0], course.steps[-1])]
        sums = torch.stack(rows)
        self._sums = sums if self._sums is None else self._sums + sums

    def summary(self) -> dict[str, Any]:
        """Means per contour.

        "contours", "restored" (instances that kept their coarse contour), "flip_share" (vertices that flipped in each
        iteration), "sharpness" (mean |phi - 0.5| before each), "crossing_before" and "crossing_after" (share of
        contours that cross themselves).
        """
        n = self.iterations
        sums = [0.0] * (2 * n + 2) if self._sums is None else self._sums.tolist()
        means = [value / max(self.contours, 1) for value in sums]
        return {
            "contours": self.contours,
            "restored": self.restored,
            "flip_share": means[:n],
            "sharpness": means[n : 2 * n],
            "crossing_before": means[-2],
            "crossing_after": means[-1],
        }
