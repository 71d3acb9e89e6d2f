"""The mask head: a soft mask inside each RoI, and what it learns.

Shapes: R RoIs, C classes, S = twice the resolution, 28.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from models.roi import Norm, roi_conv
from sharpcontour.masks import PackedMasks
from sharpcontour.soft_masks import Paste


@dataclass
class MaskHeadConfig:
    """Masks of RoIs. The defaults are Detectron2's."""

    num_convs: int = 4  # 3x3
    channels: int = 256
    norm: Norm = "none"  # after them
    resolution: int = 14  # cells along a side of a RoI; the mask has twice as many
    targets: Literal["hard", "soft"] = "hard"  # hard: 0 or 1 (Detectron2); soft: the share covered (torchvision)
    paste: Paste = "centre"  # see sharpcontour/soft_masks.py
    # Of the last layer: N(0, 0.001), or as the others (He et al.); torchvision leaves two biases to chance.
    init: Literal["detectron2", "detectron", "torchvision"] = "detectron2"


class MaskHead(nn.Module):
    """Convolutions, up-sampling by two, one mask for each class; only the masks that are asked for are made.

    Args:
        config: all choices.
        channels: of the pyramid.
        num_classes: C.
    """

    def __init__(self, config: MaskHeadConfig, channels: int, num_classes: int) -> None:
        super().__init__()
        widths = [channels] + [config.channels] * config.num_convs
        self.convs = nn.Sequential(*(roi_conv(a, b, config.norm) for a, b in itertools.pairwise(widths)))
        self.deconv = nn.ConvTranspose2d(widths[-1], config.channels, 2, stride=2)
        self.logits = nn.Conv2d(config.channels, num_classes, 1)
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_out", nonlinearity="relu")
        if config.init == "detectron2":
            nn.init.normal_(self.logits.weight, std=0.001)
        else:
            nn.init.kaiming_normal_(self.logits.weight, mode="fan_out", nonlinearity="relu")
        if config.init != "torchvision":
            nn.init.zeros_(self.deconv.bias)  # type: ignore[arg-type]
            nn.init.zeros_(self.logits.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Logits (R, S, S), float32, of the classes ``labels`` (R,), from features (R, channels, S/2, S/2).

        ``features`` are those behind the convolutions. The last layer is evaluated for one class of each RoI instead of
        all: the same numbers at a fraction of the work.
        """
        x = F.relu(self.deconv(features))
        weight, bias = self.logits.weight[labels, :, 0, 0], self.logits.bias[labels]  # type: ignore[index]
        x = torch.baddbmm(bias[:, None, None].to(x.dtype), weight[:, None].to(x.dtype), x.flatten(2))
        side = 2 * features.shape[-1]
        return x.view(-1, side, side).float()


def mask_targets(
    masks: Sequence[PackedMasks],
    sizes: Sequence[tuple[int, int]],
    boxes: Sequence[Tensor],
    objects: Sequence[Tensor],
    side: int,
    soft: bool,
) -> Tensor:
    """What the mask head learns, (R, side, side): the masks of objects averaged over the cells of their RoIs.

    Args:
        masks: of the objects of each image.
        sizes: (height, width) of each image.
        boxes: (R_i, 4) of each image, network-input pixels.
        objects: (R_i,) int64 of each image, which object each box learns.
        side: cells.
        soft: the average itself, sampled as torchvision does; otherwise 1 from 0.5 on, sampled as Detectron2 does.
    """
    parts = []
    for mask, size, box, index in zip(masks, sizes, boxes, objects, strict=True):
        rois = torch.cat([index[:, None].to(box.dtype), box], 1)
        image = mask.dense(*size).to(box.dtype)[:, None]
        if len(image) == 0:
            image = box.new_zeros(1, 1, *size)
        parts.append(roi_align(image, rois, side, 1.0, -1, aligned=not soft)[:, 0])
    covered = torch.cat(parts)
    return covered if soft else (covered >= 0.5).to(covered.dtype)
