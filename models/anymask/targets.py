"""What a loader worker adds to a training target for AnyMask: masks as somebody might give them."""

from __future__ import annotations

import numpy as np
import torch

from data.degrade import worsen
from sharpcontour.anymask.host import MaskTarget
from sharpcontour.anymask.network import DISTANCE_CELLS
from sharpcontour.anymask.windows import distance_maps, windows_around
from sharpcontour.contours.tracing import trace_mask
from sharpcontour.contours.types import Rings
from sharpcontour.host import Target
from sharpcontour.masks.packed import PackedMasks
from sharpcontour.points import boundary_samples

SAMPLES = 128  # points on a given contour, which training points are drawn around
SMALLEST = 10.0  # px, shorter side of the objects that are learned from


def build_targets(target: Target, rng: np.random.Generator, count: int) -> MaskTarget:
    """Add ``count`` given masks to one image's target, fewer where nothing is large enough to learn from.

    Args:
        target: as the data set makes it; "masks", "boxes" and "size" are read.
        rng: what is random.
        count: M.
    """
    sides = (target["boxes"][:, 2:] - target["boxes"][:, :2]).amin(1).numpy()
    usable = np.flatnonzero(sides >= SMALLEST)
    chosen = rng.choice(usable, count, replace=len(usable) < count) if len(usable) else usable
    given: list[Rings] = []
    objects: list[int] = []
    for k in chosen.tolist():
        rings = _worse(target["masks"], k, target["size"], rng)
        if rings:
            given.append(rings)
            objects.append(k)
    points = [np.concatenate(rings) for rings in given]
    boxes = np.array([[*p.min(0), *p.max(0)] for p in points], np.float32).reshape(-1, 4)
    windows = windows_around(boxes, rng.uniform(0.1, 0.3, len(boxes))).astype(np.float32)
    slack = rng.uniform(-0.05, 0.05, (len(boxes), 2)) * (windows[:, 2:] - windows[:, :2])
    windows += np.tile(slack, 2).astype(np.float32)
    return {
        **target,
        "given_object": torch.tensor(objects, dtype=torch.int64),
        "given_boxes": torch.from_numpy(boxes),
        "given_windows": torch.from_numpy(windows),
        "given_distance": torch.from_numpy(
            distance_maps(given, windows, boxes).reshape(-1, DISTANCE_CELLS, DISTANCE_CELLS)
        ),
        "given_boundary": torch.from_numpy(boundary_samples(given, SAMPLES, rng)),
    }


def _worse(masks: PackedMasks, k: int, size: tuple[int, int], rng: np.random.Generator) -> Rings:
    """The outline of one object's mask, made worse."""
    x0, y0, width, height = masks.crops[k].tolist()
    mask = np.zeros(size, bool)
    mask[y0 : y0 + height, x0 : x0 + width] = masks.crop(k).numpy()
    return trace_mask(worsen(mask, rng))
