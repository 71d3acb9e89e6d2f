"""CondInst's dynamic mask head: three 1x1 convolutions whose weights each instance brings along.

Shapes: B images, K instances, h x w cells of the mask branch's map (stride 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from models.boxes import counts_of
from models.condinst.mask_branch import STRIDE, enlarge
from sharpcontour.host import Target

MASK_STRIDE = 4  # of the masks, in network-input pixels


def parameter_count(mask_channels: int, head_channels: int) -> int:
    """P, the number of weights and biases of one instance's head: 169 with 8 and 8 channels."""
    return sum(inner * outer + outer for inner, outer in pairwise(_widths(mask_channels, head_channels)))


def _widths(mask_channels: int, head_channels: int) -> tuple[int, ...]:
    return (mask_channels + 2, head_channels, head_channels, 1)


def split_parameters(theta: Tensor, mask_channels: int, head_channels: int) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters (K, P) -> three weights (K, out, in) and three biases (K, out, 1); ``theta`` has all weights first."""
    widths = _widths(mask_channels, head_channels)
    shapes = [(outer, inner) for inner, outer in pairwise(widths)]
    parts = theta.split([outer * inner for outer, inner in shapes] + list(widths[1:]), dim=1)
    weights = [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=False)]
    return weights, [part[..., None] for part in parts[3:]]


def mask_logits(features: Tensor, theta: Tensor, points: Tensor, reach: Tensor, head_channels: int) -> Tensor:
    """Mask logits of the K instances of one image, (K, 2h, 2w) at stride 4.

    The first layer reads an instance's distance from every cell beside the features. The distance is linear in the
    cell's place, so that its share is one of the instance (a bias) and one of the cell (two more features): all
    instances read the same map, and none is copied for each of them.

    Args:
        features: (mask_channels, h, w) of the image, float32.
        theta: (K, P) parameters of the heads, float32.
        points: (K, 2) location of each instance in network-input pixels.
        reach: (K,) pixels that distances from each instance are measured in.
        head_channels: of the hidden layers.
    """
    with torch.autocast(features.device.type, enabled=False):  # in half precision places would be pixels off
        channels, h, w = features.shape
        weights, biases = split_parameters(theta, channels, head_channels)
        # Places are counted from the middle of the map: the two shares stay small, and so does their rounding.
        middle = torch.tensor([w, h], dtype=points.dtype).mul(STRIDE / 2).to(points.device, non_blocking=True)
        per_pixel = weights[0][..., :2] / reach[:, None, None]  # (K, head_channels, 2)
        first = torch.cat([-per_pixel, weights[0][..., 2:]], 2)
        bias = biases[0] + per_pixel @ (points - middle)[..., None]
        shared = torch.cat([_places(h, w, middle), features.flatten(1)])
        x = (first.flatten(0, 1) @ shared).unflatten(0, first.shape[:2]) + bias
        x = torch.baddbmm(biases[1], weights[1], x.relu_())
        x = torch.baddbmm(biases[2], weights[2], x.relu_())
        return enlarge(x.unflatten(2, (h, w)), STRIDE // MASK_STRIDE)[:, 0]


def _places(h: int, w: int, middle: Tensor) -> Tensor:
    """(2, h * w) x, y of the cells, seen from ``middle``."""
    x = torch.arange(w, device=middle.device) * STRIDE + STRIDE // 2 - middle[0]
    y = torch.arange(h, device=middle.device) * STRIDE + STRIDE // 2 - middle[1]
    return torch.stack([x.expand(h, w), y[:, None].expand(h, w)]).flatten(1)


def mask_targets(target: Target, height: int, width: int) -> Tensor:
    """(G, height, width) bool: the objects of one image on the mask grid, read at pixel 4 j + 2, not averaged."""
    begin = MASK_STRIDE // 2
    return target["masks"].dense(height * MASK_STRIDE, width * MASK_STRIDE)[:, begin::MASK_STRIDE, begin::MASK_STRIDE]


def dice_losses(logits: Tensor, wanted: Tensor) -> Tensor:
    """Dice losses (K,), 1 minus the dice coefficient, of soft masks (K, h, w) against binary ones."""
    probability, wanted = logits.sigmoid().flatten(1), wanted.flatten(1).to(logits.dtype)
    overlap = (probability * wanted).sum(1)
    return 1 - 2 * overlap / (probability.square().sum(1) + wanted.sum(1) + 1e-5)


def mask_loss(
    features: Tensor,
    theta: Tensor,
    points: Tensor,
    reach: Tensor,
    image_index: Tensor,
    target_index: Tensor,
    targets: Sequence[Target],
    head_channels: int,
) -> Tensor:
    """Mean dice loss of K training locations over the whole padded images; nothing is copied for each of them.

    Args:
        features: (B, mask_channels, h, w).
        theta: (K, P) parameters of the heads, float32.
        points: (K, 2) location of each instance in network-input pixels.
        reach: (K,) pixels that distances from each instance are measured in.
        image_index: (K,) int64.
        target_index: (K,) int64, the object, counted through the targets of the batch.
        targets: "masks" of each image.
        head_channels: of the hidden layers.
    """
    if len(theta) == 0:  # touches every parameter: no process may wait for this one's gradients
        return 0.0 * (features.sum() + theta.sum())
    counts = counts_of(image_index, len(targets))
    losses, before = [], 0
    for image, mine in enumerate(image_index.argsort().split(counts)):
        if len(mine):
            logits = mask_logits(features[image], theta[mine], points[mine], reach[mine], head_channels)
            wanted = mask_targets(targets[image], logits.shape[1], logits.shape[2])
            losses.append(dice_losses(logits, wanted[target_index[mine] - before]))
        before += len(targets[image]["masks"])
    return torch.cat(losses).mean()
