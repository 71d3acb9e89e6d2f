"""Refining objects that no host has found: masks from anywhere, of one image."""

from __future__ import annotations

from dataclasses import replace

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
from sharpcontour.host import at_least_one_pixel
from sharpcontour.refined_model import RefinedModel

AT_ONCE = 128  # instances described together: 256 x 14 x 14 float32 features of so many take 25 MiB
STILL = 0.1  # px of the image: a point that moved no farther keeps its place


@torch.inference_mode()
def refine_given(
    model: RefinedModel, image: Tensor, given: GivenObjects, boxes: Tensor, size: tuple[int, int]
) -> list[Rings]:
    """Refine K objects on one image; the image passes the network once, the objects follow in parts.

    Args:
        model: in evaluation mode.
        image: (3, h, w) uint8 at network-input size.
        given: the objects, in pixels of the image as it was given.
        boxes: (K, 4) float32 xyxy in the same pixels.
        size: (height, width) of that image.

    Returns:
        K objects in the same pixels. One that keeps its outline (empty, too small, or refinement did harm) is
        ``given.objects[k]`` itself; of others the small rings keep theirs.
    """
    config, objects = model.refiner.config, list(given.objects)
    scale = np.array([image.shape[2] / size[1], image.shape[1] / size[0]])
    # Too small to refine is also what becomes larger only because the image is enlarged.
    tracing = replace(config.tracing, min_area=config.tracing.min_area * max(1.0, float(scale.prod())))
    chosen = refinable(given.rings, given.rings.areas() * scale.prod(), len(given), tracing)
    large = given.rings.select(chosen)
    if len(large.mask) == 0:
        return objects
    encoded = model.host.encode([image])
    start = resample_rings(large.points * scale, large.starts, config.evolution.vertices)
    limits = torch.tensor([[image.shape[2], image.shape[1]] * 2])
    network_boxes = at_least_one_pixel(boxes * torch.from_numpy(scale).float().repeat(2), limits)
    instances = np.unique(large.mask)
    for part in np.split(instances, range(AT_ONCE, len(instances), AT_ONCE)):
        rows = slice(*np.searchsorted(large.mask, [part[0], part[-1] + 1]))
        inputs = model.host.describe(encoded, [network_boxes[part]])
        contours = Contours(
            torch.from_numpy(start[rows].astype(np.float32)),
            torch.from_numpy(np.searchsorted(part, large.mask[rows])),
            torch.from_numpy(large.hole[rows]),
            [[] for _ in part],
        )
        inputs = replace(inputs, contours=contours.to(inputs.boxes.device))
        moved, restored = model.finish(inputs, model.refiner.refine(inputs))
        for i in sorted(set(range(len(part))) - set(restored)):
            k = int(part[i])
            begin, end = np.searchsorted(given.rings.mask, [k, k + 1])
            new = iter([(ring / scale).astype(np.float32) for ring in moved[i]])
            old = zip(given.objects[k], chosen[begin:end].tolist(), strict=True)
            objects[k] = [next(new) if is_large else ring for ring, is_large in old]
    return objects


@torch.inference_mode()
def refine_in_windows(model: RefinedModel, image: np.ndarray, given: GivenObjects) -> list[Rings]:
    """Refine K objects on one image with a host that is given masks, each looked at in its window.

    Args:
        model: its host is a :class:`~sharpcontour.anymask.host.MaskHost`; in evaluation mode.
        image: (H, W, 3) uint8 RGB.
        given: the objects, in pixels of the image.

    Returns:
        K objects in the same pixels. One that nothing moves (empty, too small, or refinement did harm) is
        ``given.objects[k]`` itself; of others what did not move keeps its vertices.
    """
    objects = list(given.objects)
    boxes = given.boxes().numpy().astype(np.float64)
    windows = windows_around(boxes)
    scale = SIDE / (windows[:, 2] - windows[:, 0])
    areas = given.rings.areas() * scale[given.rings.mask] ** 2
    chosen = refinable(given.rings, areas, len(given), model.refiner.config.tracing)
    worth = np.unique(given.rings.mask[chosen])
    for view in plan_views(windows[worth], (image.shape[0], image.shape[1])):
        pixels = torch.from_numpy(np.ascontiguousarray(view.cut(image).transpose(2, 0, 1)))
        features = model.host.encode([pixels])
        for begin in range(0, len(view.instances), AT_ONCE):
            part = worth[view.instances[begin : begin + AT_ONCE]]
            for k, rings in _refine_part(model, features, view, part, windows[part], given, chosen).items():
                objects[k] = rings
    return objects


def _refine_part(
    model: RefinedModel,
    features: Tensor,
    view: View,
    part: np.ndarray,
    windows: np.ndarray,
    given: GivenObjects,
    chosen: np.ndarray,
) -> dict[int, Rings]:
    """The objects ``part`` (K,) of one view that were moved, by their place among all."""
    boxes = given.boxes().numpy()[part].astype(np.float64)
    side = SIDE / (windows[:, 2:] - windows[:, :2])
    device = features.device
    distance = distance_maps([given.objects[k] for k in part], windows, boxes)
    own_boxes = (boxes - np.tile(windows[:, :2], 2)) * np.tile(side, 2)
    inputs = model.host.look(
        features,
        Windows(
            torch.zeros(len(part), dtype=torch.int64, device=device),
            torch.from_numpy(view.place(windows).astype(np.float32)).to(device),
            torch.from_numpy(own_boxes.astype(np.float32)).to(device),
            torch.from_numpy(distance).to(device),
        ),
    )
    rows = np.flatnonzero(chosen & np.isin(given.rings.mask, part))
    owner = np.searchsorted(part, given.rings.mask[rows], sorter=np.argsort(part))
    owner = np.argsort(part)[owner]
    order = np.argsort(owner, kind="stable")
    rows, owner = rows[order], owner[order]
    outlines = [given.rings.points[slice(*given.rings.starts[row : row + 2])] for row in rows]
    starts = np.cumsum([0, *map(len, outlines)])
    even = resample_rings(np.concatenate(outlines), starts, model.refiner.config.evolution.vertices)
    start = (even - windows[owner, None, :2]) * side[owner, None]
    contours = Contours(
        torch.from_numpy(start.astype(np.float32)).to(device),
        torch.from_numpy(owner).to(device),
        torch.from_numpy(given.rings.hole[rows]).to(device),
        [[] for _ in part],
    )
    inputs = replace(inputs, contours=contours)
    course = model.refiner.refine(inputs)
    _, restored = model.finish(inputs, course)
    end = course.steps[-1].float().cpu().numpy() / side[owner, None] + windows[owner, None, :2]
    moved: dict[int, Rings] = {}
    first = np.searchsorted(given.rings.mask, part)
    for i, row in enumerate(rows.tolist()):
        k = int(owner[i])
        if k in restored:
            continue
        own = moved.setdefault(int(part[k]), list(given.objects[part[k]]))
        own[row - int(first[k])] = carry(own[row - int(first[k])], even[i], end[i], STILL)
    return {
        k: rings for k, rings in moved.items() if any(a is not b for a, b in zip(rings, given.objects[k], strict=True))
    }
