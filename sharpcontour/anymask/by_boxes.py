"""Masks from anywhere, refined by a host that detects for itself: by the features of their boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sharpcontour.anymask.given_objects import GivenObjects
from sharpcontour.contours.tracing import refinable, resample_rings
from sharpcontour.contours.types import Contours, Rings
from sharpcontour.host import at_least_one_pixel
from sharpcontour.refined_model import RefinedModel

AT_ONCE = 128  # instances described together: 256 x 14 x 14 float32 features of so many take 25 MiB


@torch.inference_mode()
def refine_by_boxes(
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
        ``given.objects[k]`` itself; of others the small rings keep theirs, unless parts have grown into one another
        (:meth:`~sharpcontour.anymask.given_objects.GivenObjects.with_moved`).
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
    outlines = [(ring * scale).astype(np.float32) for ring in large.split()] if config.tracing.carry_back else []
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
            outlines[rows],
        )
        inputs = replace(inputs, contours=contours.to(inputs.boxes.device), images=[image])
        moved, restored = model.finish(inputs, model.refiner.refine(inputs))
        unmoved = set(map(id, contours.outlines))
        for i in sorted(set(range(len(part))) - set(restored)):
            k = int(part[i])
            own = range(*np.searchsorted(given.rings.mask, [k, k + 1]).tolist())
            places = [place for place, row in enumerate(own) if chosen[row]]
            new = {
                place: (ring / scale).astype(np.float32)
                for place, ring in zip(places, moved[i], strict=True)
                if id(ring) not in unmoved
            }
            if new:
                objects[k] = given.with_moved(k, new, *size)
    return objects
