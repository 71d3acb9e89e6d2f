"""Masks from anywhere, refined by the host that is given masks: each in its window, at a size that suits it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sharpcontour.anymask.given_objects import GivenObjects
from sharpcontour.anymask.host import Windows
from sharpcontour.anymask.network import SIDE
from sharpcontour.anymask.views import View, plan_views
from sharpcontour.anymask.windows import distance_maps, windows_around
from sharpcontour.config import TracingConfig
from sharpcontour.contours.carry import carry
from sharpcontour.contours.tracing import refinable, resample_rings
from sharpcontour.contours.types import Contours, Ring, Rings
from sharpcontour.errors import InputError
from sharpcontour.refined_model import RefinedModel
from sharpcontour.refiner import CARRY_BACK

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
        is ``given.objects[k]`` itself; of others what did not move keeps its vertices, unless parts have grown into one
        another (:meth:`~sharpcontour.anymask.given_objects.GivenObjects.with_moved`).
    """
    objects, size, device = list(given.objects), (image.shape[0], image.shape[1]), model.host.pixel_mean.device
    config = model.refiner.config
    count = AT_ONCE_ON_CPU if device.type == "cpu" else AT_ONCE
    for view, parts in parts_of(given, size, config.tracing, config.evolution.vertices, count):
        pixels = torch.from_numpy(np.ascontiguousarray(view.cut(image).transpose(2, 0, 1)))
        with networks_precision(device):
            features = model.host.encode([pixels])
        for part in parts:
            for k, rings in part.refine(model, features, view).items():
                objects[k] = rings
    return objects


def parts_of(
    given: GivenObjects, size: tuple[int, int], tracing: TracingConfig, vertices: int, count: int
) -> Iterator[tuple[View, list[Part]]]:
    """The views that are looked at, each with the objects on it that are large enough to refine.

    Args:
        given: the objects, in pixels of the image.
        size: (height, width) of the image.
        tracing: which rings are large enough.
        vertices: N, of every ring.
        count: objects in a part at most.
    """
    boxes = given.boxes().numpy().astype(np.float64)
    windows = windows_around(boxes)
    scale = SIDE / (windows[:, 2] - windows[:, 0])
    # Too small to refine is also what becomes larger only because its window is enlarged.
    areas = given.rings.areas() * np.minimum(scale, 1)[given.rings.mask] ** 2
    large = refinable(given.rings, areas, len(given), tracing)
    worth = np.unique(given.rings.mask[large])
    for view in plan_views(windows[worth], size):
        chosen = (view.instances[begin : begin + count] for begin in range(0, len(view.instances), count))
        yield view, [Part(given, np.sort(worth[part]), boxes, windows, large, size, vertices) for part in chosen]


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
        large: (all,) bool, the rings of all objects that are large enough to refine; R of the chosen ones are.
        size: (height, width) of the image.
        vertices: N, of every ring.

    Attributes:
        masks: (R,) int64, the object that each ring is of, by its place among all.
    """

    def __init__(
        self,
        given: GivenObjects,
        chosen: np.ndarray,
        boxes: np.ndarray,
        windows: np.ndarray,
        large: np.ndarray,
        size: tuple[int, int],
        vertices: int,
    ) -> None:
        self.given, self.chosen, self.size = given, chosen, size
        self.boxes, self.windows = boxes[chosen], windows[chosen]
        self.scale = SIDE / (self.windows[:, 2:] - self.windows[:, :2])  # window pixels to one of the image, (K, 1)
        self.rows = np.flatnonzero(large & np.isin(given.rings.mask, chosen))
        self.masks = given.rings.mask[self.rows]
        self.owner = np.searchsorted(chosen, self.masks)  # of each ring, 0 to K - 1
        self.even = self._even(vertices)

    def arrays(self, view: View) -> dict[str, np.ndarray]:
        """The objects on a view and their rings, all but "windows" in pixels of the windows.

        Returns:
            "windows" (K, 4) float32 xyxy in pixels of the view, "boxes" (K, 4) float32 xyxy, "distance" (K, 128, 128)
            float16, "contours" (R, N, 2) float32, "instance" (R,) int64, 0 to K - 1, and "hole" (R,) bool.
        """
        own = (self.boxes - np.tile(self.windows[:, :2], 2)) * np.tile(self.scale, 2)
        start = (self.even - self._begin()) * self.scale[self.owner, None]
        return {
            "windows": view.place(self.windows).astype(np.float32),
            "boxes": own.astype(np.float32),
            "distance": distance_maps([self.given.objects[k] for k in self.chosen], self.windows, self.boxes),
            "contours": start.astype(np.float32),
            "instance": self.owner,
            "hole": self.given.rings.hole[self.rows],
        }

    def refine(self, model: RefinedModel, features: Tensor, view: View) -> dict[int, Rings]:
        """The objects that were moved, by their place among all objects of the image."""
        if model.refiner.config.evolution.resample_iterations:
            raise InputError(CARRY_BACK)
        device = features.device
        given = {name: torch.from_numpy(array).to(device) for name, array in self.arrays(view).items()}
        view_index = torch.zeros(len(self.chosen), dtype=torch.int64, device=device)
        with networks_precision(device):
            seen = Windows(view_index, given["windows"], given["boxes"], given["distance"])
            inputs = model.host.look(features, seen)
        contours = Contours(given["contours"], given["instance"], given["hole"], [[] for _ in self.chosen])
        inputs = replace(inputs, fine=inputs.fine.float(), feats=inputs.feats.float(), contours=contours)
        with torch.autocast(device.type, enabled=False):  # whatever the caller's precision is
            course = model.refiner.refine(inputs)
            _, restored = model.finish(inputs, course)
        end = self.in_image(course.steps[-1].float().cpu().numpy())
        return self._carried(end, set(restored), model.refiner.config.tracing.min_move)

    def in_image(self, end: np.ndarray) -> np.ndarray:
        """Where refined contours (R, N, 2) in pixels of the windows lie on the image, in its pixels.

        A vertex on the image's border that moved little is where it was.
        """
        placed = end / self.scale[self.owner, None] + self._begin()
        # A window may reach beyond the image, but no outline that did not do so before.
        placed = placed.clip(np.minimum(self.even, 0), np.maximum(self.even, self.size[::-1]))
        return np.where(self._cut_off(placed)[..., None], self.even, placed)

    def _begin(self) -> np.ndarray:
        """(R, 1, 2), where the window of each ring begins in the image."""
        return self.windows[self.owner, None, :2]

    def _even(self, vertices: int) -> np.ndarray:
        """(R, N, 2) points evenly spaced along the rings, in pixels of the image."""
        rings = self.given.rings
        outlines = [rings.points[rings.starts[row] : rings.starts[row + 1]] for row in self.rows]
        return resample_rings(np.concatenate(outlines), np.cumsum([0, *map(len, outlines)]), vertices)

    def _cut_off(self, end: np.ndarray) -> np.ndarray:
        """(R, N) bool, the points on the image's border that moved little."""
        border = ((self.even <= 0.5) | (self.even >= np.array(self.size[::-1]) - 0.5)).any(2)
        way = (end - self.even) * self.scale[self.owner, None]
        return border & (np.hypot(way[..., 0], way[..., 1]) < AT_BORDER)

    def _carried(self, end: np.ndarray, restored: set[int], min_move: float) -> dict[int, Rings]:
        """The given outlines after their evenly spaced points have moved to ``end`` by more than ``min_move``."""
        moved: dict[int, dict[int, Ring]] = {}
        for row, k, before, after in zip(self.rows.tolist(), self.owner.tolist(), self.even, end, strict=True):
            if k in restored:
                continue
            number = int(self.chosen[k])
            place = row - int(np.searchsorted(self.given.rings.mask, number))
            ring = self.given.objects[number][place]
            new = carry(ring, before, after, max(STILL / float(self.scale[k, 0]), min_move))
            if new is not ring:
                moved.setdefault(number, {})[place] = new
        return {number: self.given.with_moved(number, rings, *self.size) for number, rings in moved.items()}
