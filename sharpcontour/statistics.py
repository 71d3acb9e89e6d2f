"""What tells whether an evolution is healthy: sharpness of phi, flips, self-crossings, contours put back."""

from __future__ import annotations

import torch
from torch import Tensor

from sharpcontour.contours.geometry import self_crossing
from sharpcontour.evolution import Evolution


class EvolutionStatistics:
    """Counts of all evolutions since :meth:`reset`; from :meth:`start` to :meth:`finish` also what costs time.

    Attributes:
        contours: how many have evolved.
        restored: instances that kept their coarse contour, since refinement did harm.
    """

    def __init__(self) -> None:
        self._measures = False
        self.reset()

    def reset(self) -> None:
        """Set all counts to zero."""
        self.contours, self.restored = 0, 0
        self._sums: dict[str, Tensor] = {}

    def start(self) -> None:
        """Reset, and from now on measure sharpness, flips and self-crossings too; the last take O(N^2) a contour."""
        self.reset()
        self._measures = True

    def finish(self) -> dict[str, int | float | list[float]]:
        """The :meth:`summary` since :meth:`start`; resets, and measures no more."""
        found = self.summary()
        self.reset()
        self._measures = False
        return found

    def add(self, course: Evolution, restored: list[int]) -> None:
        """Count one evolution; ``restored`` are the instances that kept their coarse contour."""
        self.restored += len(restored)
        self.contours += len(course.steps[0])
        if not self._measures:
            return
        means = {"flip_share": course.flipped, "sharpness": course.sharpness}
        rows = {name: [value.float().mean(1).sum() for value in values] for name, values in means.items() if values}
        crossings = {"crossing_before": course.steps[0], "crossing_after": course.steps[-1]}
        rows |= {name: [self_crossing(contour).float().sum()] for name, contour in crossings.items()}
        for name, values in rows.items():
            sums = torch.stack(values)
            self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    def summary(self) -> dict[str, int | float | list[float]]:
        """Counts, and means per contour, of all evolutions since :meth:`start`.

        "contours", "restored" (instances that kept their coarse contour), and of each evolution that tells them
        "flip_share" (vertices that flipped in each iteration), "sharpness" (mean |phi - 0.5| before each),
        "crossing_before" and "crossing_after" (share of contours that cross themselves). Without :meth:`start` the
        first two alone.
        """
        means = {name: (sums / max(self.contours, 1)).tolist() for name, sums in self._sums.items()}
        names = ("crossing_before", "crossing_after") if self._measures else ()
        crossings = {name: means.pop(name, [0.0])[0] for name in names}
        return {"contours": self.contours, "restored": self.restored, **means, **crossings}
