"""CondInst's mask branch: P3 to P5 -> one map of mask features an image, at the resolution of P3.

Shapes: B images, h x w cells of P3, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from models.condinst.config import CondInstConfig
from sharpcontour.host import Target

STRIDE = 8  # of P3, in network-input pixels
LEVELS = ("p3", "p4", "p5")


class MaskBranch(nn.Module):
    """Three levels brought to one resolution and added, then a tower of convolutions.

    With ``config.semantic`` a second, shorter tower on P3 names the class at every cell: a loss in training, nothing
    else.
    """

    def __init__(self, config: CondInstConfig, num_classes: int) -> None:
        super().__init__()
        channels, pyramid = config.branch_channels, config.backbone.fpn_channels
        self.refine = nn.ModuleList(_block(pyramid, channels) for _ in LEVELS)
        self.tower = nn.Sequential(*(_block(channels, channels) for _ in range(config.branch_convs)))
        self.output = nn.Conv2d(channels, config.mask_channels, 1)
        self.semantic: nn.Sequential | None = None
        if config.semantic:
            logits = nn.Conv2d(channels, num_classes, 1)
            nn.init.constant_(logits.bias, -math.log((1 - config.fcos.prior) / config.fcos.prior))  # type: ignore[arg-type]
            self.semantic = nn.Sequential(_block(pyramid, channels), _block(channels, channels), logits)

    def forward(self, pyramid: dict[str, Tensor]) -> Tensor:
        """Mask features (B, mask_channels, h, w) at the resolution of P3."""
        maps = [block(pyramid[level]) for block, level in zip(self.refine, LEVELS, strict=True)]
        height, width = maps[0].shape[2:]
        merged = maps[0]
        for k, coarser in enumerate(maps[1:], 1):
            merged = merged + enlarge(coarser, 2**k)[..., :height, :width]
        return self.output(self.tower(merged))


def _block(channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def enlarge(maps: Tensor, factor: int) -> Tensor:
    """(..., h, w) -> (..., factor * h, factor * w), linear, cell k on the index ``factor * k + factor // 2``.

    CondInst's "aligned" upsampling: unlike half-pixel alignment it moves an even-factored map by half a cell of the
    result, which its targets, and so its weights, count on. Two steps in a row are not one step of their product.
    """
    h, w = maps.shape[-2:]
    # With corners aligned the cells lie a whole factor apart; the outermost ones are then carried on.
    between = F.interpolate(maps, (factor * (h - 1) + 1, factor * (w - 1) + 1), mode="bilinear", align_corners=True)
    before, after = factor // 2, factor - 1 - factor // 2
    return F.pad(between, (before, after, before, after), mode="replicate")


def semantic_loss(logits: Tensor, targets: Sequence[Target], alpha: float, gamma: float) -> Tensor:
    """Focal loss against the class of the smallest object at every cell, over the number of cells with an object.

    Args:
        logits: (B, C, h, w) at the resolution of P3.
        targets: "masks" and "labels" of each image.
        alpha, gamma: of the focal loss.
    """
    classes, (height, width) = logits.shape[1], logits.shape[2:]
    wanted = torch.stack(
        [_class_map(target, height, width, classes) for target in targets]  # (B, h, w), ``classes``: no object
    )
    onehot = (wanted[:, None] == torch.arange(classes, device=wanted.device)[:, None, None]).to(logits.dtype)
    count = (wanted < classes).sum().clamp(min=1)
    return sigmoid_focal_loss(logits, onehot, alpha, gamma, reduction="sum") / count


def _class_map(target: Target, height: int, width: int, nothing: int) -> Tensor:
    masks, labels = target["masks"], target["labels"]
    if len(labels) == 0:
        return labels.new_full((height, width), nothing)
    inside = masks.dense(height * STRIDE, width * STRIDE)[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    areas = masks.centres()[1].float()  # exact up to 4096 x 4096 pixels
    smallest, index = torch.where(inside, areas[:, None, None], torch.inf).min(0)
    return torch.where(smallest.isfinite(), labels[index], nothing)
