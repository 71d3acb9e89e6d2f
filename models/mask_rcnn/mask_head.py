"""The mask head: a soft mask inside each RoI.

Shapes: R RoIs, C classes, S = twice the resolution, 28.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from models.two_stage.roi import Norm, logits_of_class, roi_conv
from models.two_stage.soft_masks import Paste


@dataclass
class MaskHeadConfig:
    """Settings of the mask head; the defaults are Detectron2's."""

    num_convs: int = 4  # 3x3
    channels: int = 256
    norm: Norm = "none"  # after them
    resolution: int = 14  # cells along a side of a RoI; the mask has twice as many
    targets: Literal["hard", "soft"] = "hard"  # hard: 0 or 1 (Detectron2); soft: the share covered (torchvision)
    paste: Paste = "centre"  # see models/two_stage/soft_masks.py
    # Of the last layer: N(0, 0.001), or as the others (He et al.); torchvision leaves two biases to chance.
    init: Literal["detectron2", "detectron", "torchvision"] = "detectron2"


class MaskHead(nn.Module):
    """The mask head: convolutions, up-sampling by two, one mask for each class; only the masks asked for are made.

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

        ``features`` are those behind the convolutions.
        """
        return logits_of_class(self.logits, F.relu(self.deconv(features)), labels)
