"""Asking the point classifier beside the true boundary: is it right, is it sure, and is it as often right as sure.

Points lie on both sides of the vertices of every object's own outline, at fixed distances along the normal; box and
classifier are the object's own, so no error of a detector hides one of phi.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharpcontour.contours.geometry import outward_normals
from sharpcontour.contours.tracing import contours_from_rings, trace_mask
from sharpcontour.errors import InputError
from sharpcontour.host import RefinerInputs
from sharpcontour.refined_model import RefinedModel

DISTANCES = (0.5, 1.0, 2.0, 4.0, 8.0)  # px of the network input from the boundary


@dataclass
class Probe:
    """Verdicts on P points.

    Attributes:
        distance: (P,) of each from the boundary, one of :data:`DISTANCES`.
        phi: (P,) the classifier's probability that it lies outside.
        outside: (P,) bool, whether it does, by the pixel it lies in.
    """

    distance: np.ndarray
    phi: np.ndarray
    outside: np.ndarray

    @classmethod
    def join(cls, parts: list[Probe]) -> Probe:
        """All points of several probes, of none too."""
        empty = cls(np.zeros(0), np.zeros(0), np.zeros(0, bool))
        pairs = [[getattr(part, key) for part in [empty, *parts]] for key in ("distance", "phi", "outside")]
        return cls(*(np.concatenate(values) for values in pairs))

    def accuracy(self) -> dict[str, float]:
        """Share of right verdicts, 0 to 1, by distance; a phi of exactly one half says inside (section 3.2)."""
        return self._by_distance((self.phi > 0.5) == self.outside)

    def sharpness(self) -> dict[str, float]:
        """Mean of |phi - 0.5| by distance: what a step of the evolution is scaled by."""
        return self._by_distance(np.abs(self.phi - 0.5))

    def calibration(self, bins: int = 10) -> list[dict[str, float]]:
        """Of points whose phi falls into each of some equal bins: mean "phi", share "outside", and their "count".

        A phi that is a probability has both means equal. Bins without points are left out.
        """
        place = np.minimum((self.phi * bins).astype(int), bins - 1)
        rows = []
        for k in range(bins):
            chosen = place == k
            if chosen.any():
                means = {"phi": self.phi[chosen].mean(), "outside": self.outside[chosen].mean()}
                rows.append({**{key: float(value) for key, value in means.items()}, "count": int(chosen.sum())})
        return rows

    def calibration_error(self) -> float:
        """How far phi is from a probability, 0 to 1: the mean gap of :meth:`calibration`, each bin by its count."""
        rows = self.calibration()
        gaps = sum(row["count"] * abs(row["phi"] - row["outside"]) for row in rows)
        return gaps / max(sum(row["count"] for row in rows), 1)

    def summary(self) -> dict[str, Any]:
        """All of these as plain values."""
        return {
            "accuracy": self.accuracy(),
            "sharpness": self.sharpness(),
            "calibration": self.calibration(),
            "calibration_error": self.calibration_error(),
        }

    def _by_distance(self, values: np.ndarray) -> dict[str, float]:
        chosen = {distance: self.distance == distance for distance in DISTANCES}
        return {f"{distance:g}": float(values[rows].mean()) for distance, rows in chosen.items() if rows.any()}


@torch.no_grad()
def probe(model: RefinedModel, inputs: RefinerInputs, masks: list[np.ndarray]) -> Probe:
    """Ask a model beside the boundaries of the K objects that ``inputs`` describe, masks (H, W) bool.

    phi is the one that marches, at the ``temperature`` of the evolution.

    Raises:
        InputError: where the refiner has no phi.
    """
    config = model.refiner.config
    if config.classifier.output != "phi":
        raise InputError(f"a refiner of classifier.output={config.classifier.output} has no phi that could be asked")
    rings = [trace_mask(mask) for mask in masks]
    outlines = contours_from_rings(rings, config.evolution.vertices, config.tracing, inputs.boxes.device)
    # As the classifier is asked in the paper's section 3.1: along the normal, out of the object.
    away = torch.where(outlines.hole, -1.0, 1.0)[:, None, None]
    normals = outward_normals(outlines.vertices, config.evolution.normal_window) * away
    described, parts = model.refiner.classifier.describe(inputs), []
    for distance in DISTANCES if len(outlines.vertices) else ():
        points = torch.cat([outlines.vertices + side * distance * normals for side in (-1, 1)], 1)
        logits = model.refiner.classifier(described, outlines.instance, points) / config.evolution.temperature
        phi = logits.sigmoid().cpu().numpy()
        owners = zip(outlines.instance.tolist(), points.cpu().numpy(), strict=True)
        outside = np.stack([_outside(masks[k], row) for k, row in owners])
        parts.append(Probe(np.full(phi.size, distance), phi.ravel(), outside.ravel()))
    return Probe.join(parts)


@torch.no_grad()
def objects_inputs(model: RefinedModel, image: Tensor, boxes: Tensor) -> RefinerInputs:
    """What the host tells of objects on an image (3, H, W) by their own boxes (K, 4)."""
    inputs: RefinerInputs = model.host.describe(model.host.encode([image]), [boxes])
    return replace(inputs, images=[image])


def _outside(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    x, y = np.floor(points).astype(int).T
    height, width = mask.shape
    on = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return ~(on & mask[y.clip(0, height - 1), x.clip(0, width - 1)])
