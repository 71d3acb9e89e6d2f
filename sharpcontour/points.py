"""Training points: random ones near the ground-truth boundary, labelled by the mask (sections 3.3 and 3.4).

Shapes: G objects of the batch, S boundary samples of each, K instances, Q points of each.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sharpcontour.config import PointConfig
from sharpcontour.contours.types import Rings
from sharpcontour.masks.packed import PackedMasks


def boundary_samples(objects: list[Rings], count: int, rng: np.random.Generator) -> np.ndarray:
    """Random points on the outlines of G objects, uniform by arc length over all rings of each.

    Args:
        objects: G objects, each of one ring at least, in network-input pixels.
        count: S, points an object.
        rng: of the loader worker that this runs in.

    Returns:
        (G, S, 4) float32: x, y and the unit normal (to either side) there.
    """
    samples = np.zeros((len(objects), count, 4), np.float32)
    for sample, rings in zip(samples, objects, strict=True):
        begin = np.concatenate(rings).astype(np.float64)
        edge = np.concatenate([np.roll(ring, -1, 0) for ring in rings]) - begin
        length = np.hypot(edge[:, 0], edge[:, 1]) + 1e-9
        end = np.cumsum(length)
        at = rng.random(count) * end[-1]
        i = np.minimum(np.searchsorted(end, at, side="right"), len(end) - 1)
        sample[:, :2] = begin[i] + (1 - (end[i] - at) / length[i])[:, None] * edge[i]
        sample[:, 2] = edge[i, 1] / length[i]
        sample[:, 3] = -edge[i, 0] / length[i]
    return samples


def sample_points(
    boundary: Tensor,
    boxes: Tensor,
    masks: PackedMasks,
    target_index: Tensor,
    config: PointConfig,
    given: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw Q training points for each of K instances.

    Paper silent on the band: the offset across the boundary is Gaussian with sigma = 0.02 sqrt(A) (A: area of the
    ground-truth box), about half of the way that a vertex can travel; a small share is uniform in the enlarged box, so
    that phi is defined where a coarse mask is far off. The paper samples "pixels" and is silent on whether these are
    their centres; here points are continuous, as the vertices are.

    Args:
        boundary: (G, S, 4) from :func:`boundary_samples`.
        boxes: (G, 4) ground-truth boxes, xyxy in network-input pixels.
        masks: the G masks at network-input resolution.
        target_index: (K,) int64, the object of each instance.
        config: how many points, and where.
        given: (K, S, 4) from :func:`boundary_samples`, of the contours that the instances begin from; the share
            ``config.given`` of all Q points, but no more than are not uniform, is drawn around these, many of them
            close by: there phi learns when to stay.

    Returns:
        points (K, Q, 2) and labels (K, Q) float32, 1 outside and 0 inside; off the image is outside.
    """
    k, uniform = len(target_index), round(config.points * config.uniform)
    band = config.points - uniform
    box = boxes[target_index]
    size = box[:, 2:] - box[:, :2]
    sigma = (config.sigma * size.prod(1).sqrt()).clamp(min=config.min_sigma)
    pick = torch.randint(boundary.shape[1], (k, band), device=boundary.device)
    near = boundary[target_index[:, None], pick]
    if given is not None:
        count = min(round(config.points * config.given), band)
        own = given.gather(1, (pick[:, :count] % given.shape[1])[..., None].expand(-1, -1, 4))
        near = torch.cat([own, near[:, count:]], 1)
    across = torch.randn(k, band, 1, device=boundary.device) * sigma[:, None, None]
    if given is not None:
        across[:, :count] *= torch.rand(k, count, 1, device=boundary.device)
    spread = torch.rand(k, uniform, 2, device=boundary.device) * (1 + 2 * config.enlarge) - config.enlarge
    points = torch.cat([near[..., :2] + across * near[..., 2:], box[:, None, :2] + spread * size[:, None]], 1)
    return points, (~masks.inside(target_index, points)).float()
