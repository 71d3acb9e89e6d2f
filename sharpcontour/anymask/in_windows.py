"""Masks from anywhere, refined by the host that is given masks: each in its window, at a size that suits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharpcontour.anymask.foreign_masks import GivenObjects
from sharpcontour.anymask.host import Windows
from sharpcontour.anymask.network import SIDE
from sharpcontour.anymask.views import View, plan_views
from sharpcontour.anymask.windows import distance_maps, windows_around
from sharpcontour.contours.carry import carry
from sharpcontour.contours.tracing import refinable, resample_rings
from sharpcontour.contours.types import Contours, Rings
from sharpcontour.host import RefinerInputs
from sharpcontour.refined_model import RefinedModel

AT_ONCE = 128  # instances looked at together
AT_ONCE_ON_CPU = 16  # the features of so few stay in its cache
STILL = 0.1  # px of the window: a point that moved no farther keeps its place, however few pixels of the image that is
AT_BORDER = 6.0  # px of the window, likewise, of a point on the image's border, where an object is cut off, not ending


@torch.inference_mode()
def refine_in_windows(model: RefinedModel, image: np.ndarray, given: GivenObjects) -> list[Rings]:
    """Refine K objects on one image with a host that is given masks.

    Args:
        model: its host is a :class:`~sharpcontour.anymask.host.MaskHost`; in evaluation mode.
        image: (H, W, 3) uint8 RGB.
        given: the objects, in pixels of the image.

    Returns:
        K objects in the same pixels. One that nothing moves (empty, too small, already right, or refinement did harm)
        is ``given.objects[k]`` itself; of others what did not move keeps its vertices.
    """
    objects = list(given.objects)
    boxes = given.boxes().numpy().astype(np.float64)
    windows = windows_around(boxes)
    scale = SIDE / (windows[:, 2] - windows[:, 0])
    # Too small to refine is also what becomes larger only because its window is enlarged.
    areas = given.rings.areas() * np.minimum(scale, 1)[given.rings.mask] ** 2
    large = refinable(given.rings, areas, len(given), model.refiner.config.tracing)
    worth = np.unique(given.rings.mask[large])
    for view in plan_views(windows[worth], (image.shape[0], image.shape[1])):
        pixels = torch.from_numpy(np.ascontiguousarray(view.cut(image).transpose(2, 0, 1)))
        with networks_precision(model.host.pixel_mean.device):
            features = model.host.encode([pixels])
        count = AT_ONCE_ON_CPU if features.device.type == "cpu" else AT_ONCE
        for begin in range(0, len(view.instances), count):
            chosen = np.sort(worth[view.instances[begin : begin + count]])
            moved = Part(given, chosen, boxes, windows, large).refine(model, features, view, image.shape[:2])
            for k, rings in moved.items():
                objects[k] = rings
    return objects


def networks_precision(device: torch.device) -> torch.autocast:
    """Bfloat16 for the two networks, as they were trained, on processors that multiply matrices of it; else float32."""
    native: Callable[[], bool] = getattr(torch.cpu, "_is_amx_tile_supported", bool)
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cpu" and native())


class Part:
    """Some objects of one view.

    Args:
        given: all objects of the image.
        chosen: (K,) which of them, ascending.
        boxes, windows: (all, 4) around all objects, xyxy in pixels of the image.
        large: (R,) bool, the rings of all objects that are large enough to refine.
    """

    def __init__(
        self, given: GivenObjects, chosen: np.ndarray, boxes: np.ndarray, windows: np.ndarray, large: np.ndarray
    ) -> None:
        self.given, self.chosen, self.boxes, self.windows = given, chosen, boxes[chosen], windows[chosen]
        self.scale = SIDE / (self.windows[:, 2:] - self.windows[:, :2])  # window pixels to one of the image, (K, 1)
        self.rows = np.flatnonzero(large & np.isin(given.rings.mask, chosen))
        self.owner = np.searchsorted(chosen, given.rings.mask[self.rows])  # of each ring, 0 to K - 1

    def refine(self, model: RefinedModel, features: Tensor, view: View, size: tuple[int, int]) -> dict[int, Rings]:
        """The objects that were moved, by their place among all objects of the image of ``size`` (height, width)."""
        inputs = self._look(model.host, features, view)
        even = self._even(model.refiner.config.evolution.vertices)
        start = (even - self._begin()) * self.scale[self.owner, None]
        device = features.device
        contours = Contours(
            torch.from_numpy(start.astype(np.float32)).to(device),
            torch.from_numpy(self.owner).to(device),
            torch.from_numpy(self.given.rings.hole[self.rows]).to(device),
            [[] for _ in self.chosen],
        )
        inputs = replace(inputs, contours=contours)
        course = model.refiner.refine(inputs)
        _, restored = model.finish(inputs, course)
        end = course.steps[-1].float().cpu().numpy() / self.scale[self.owner, None] + self._begin()
        # A window may reach beyond the image, but no outline that did not do so before.
        end = end.clip(np.minimum(even, 0), np.maximum(even, size[::-1]))
        end = np.where(self._cut_off(even, end, size)[..., None], even, end)
        return self._carried(even, end, set(restored), model.refiner.config.tracing.min_move)

    def _look(self, host: Any, features: Tensor, view: View) -> RefinerInputs:
        """The refiner's inputs, in window pixels; no contours yet."""
        own = (self.boxes - np.tile(self.windows[:, :2], 2)) * np.tile(self.scale, 2)
        distance = distance_maps([self.given.objects[k] for k in self.chosen], self.windows, self.boxes)
        device = features.device
        windows = Windows(
            torch.zeros(len(self.chosen), dtype=torch.int64, device=device),
            torch.from_numpy(view.place(self.windows).astype(np.float32)).to(device),
            torch.from_numpy(own.astype(np.float32)).to(device),
            torch.from_numpy(distance).to(device),
        )
        with networks_precision(device):
            inputs = host.look(features, windows)
        return replace(inputs, fine=inputs.fine.float(), feats=inputs.feats.float())

    def _begin(self) -> np.ndarray:
        """(R, 1, 2), where the window of each ring begins in the image."""
        return self.windows[self.owner, None, :2]

    def _even(self, vertices: int) -> np.ndarray:
        """(R, N, 2) points evenly spaced along the rings, in pixels of the image."""
        rings = self.given.rings
        outlines = [rings.points[rings.starts[row] : rings.starts[row + 1]] for row in self.rows]
        return resample_rings(np.concatenate(outlines), np.cumsum([0, *map(len, outlines)]), vertices)

    def _cut_off(self, even: np.ndarray, end: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(R, N) bool, the points on the image's border that moved little."""
        border = ((even <= 0.5) | (even >= np.array(size[::-1]) - 0.5)).any(2)
        way = (end - even) * self.scale[self.owner, None]
        return border & (np.hypot(way[..., 0], way[..., 1]) < AT_BORDER)

    def _carried(self, even: np.ndarray, end: np.ndarray, restored: set[int], min_move: float) -> dict[int, Rings]:
        """The given outlines after their points ``even`` (R, N, 2) have moved to ``end`` by more than ``min_move``."""
        moved: dict[int, Rings] = {}
        for row, k, before, after in zip(self.rows.tolist(), self.owner.tolist(), even, end, strict=True):
            if k in restored:
                continue
            number = int(self.chosen[k])
            place = row - int(np.searchsorted(self.given.rings.mask, number))
            ring = self.given.objects[number][place]
            new = carry(ring, before, after, max(STILL / float(self.scale[k, 0]), min_move))
            if new is not ring:
                moved.setdefault(number, list(self.given.objects[number]))[place] = new
        return moved
