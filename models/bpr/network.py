"""A small network that redraws the mask in a patch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock


@dataclass
class BPRConfig:
    """Settings of patches and network: the patches are the published ones, the network is a compact one of our own.

    Published: HRNetV2-W18-small or W48, from ImageNet's weights. Ours has 0.5 million parameters and random weights.
    """

    patch: int = 64  # px, side of a patch
    size: int = 128  # px, to which it is enlarged
    nms_train: float = 0.15  # IoU of patches; COCO's values (Cityscapes: 0.25 and 0.55)
    nms_test: float = 0.25  # the same when refining
    width: int = 24  # ours, as is blocks: channels at stride 4; twice and four times as many at strides 8 and 16
    blocks: int = 2  # residual blocks at each stride
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # of RGB, 0 to 255, subtracted
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)  # of RGB, then divided by


class PatchNetwork(nn.Module):
    """The network on patches: image and mask (P, 4, s, s) -> logits (P, 2, s, s) of background and foreground.

    As HRNet's head has it, maps of all strides are enlarged to stride 4, joined, and classified there.

    Args:
        config: sizes.
    """

    def __init__(self, config: BPRConfig) -> None:
        super().__init__()
        widths = [config.width, 2 * config.width, 4 * config.width]
        self.stem = nn.Sequential(*_halving(4, config.width), *_halving(config.width, config.width))
        self.stages = nn.ModuleList()
        before = config.width
        for k, width in enumerate(widths):
            down = _halving(before, width) if k else []
            self.stages.append(nn.Sequential(*down, *(BasicBlock(width, width) for _ in range(config.blocks))))
            before = width
        joined = sum(widths)
        self.head = nn.Sequential(
            nn.Conv2d(joined, joined, 1, bias=False),
            nn.BatchNorm2d(joined),
            nn.ReLU(inplace=True),
            nn.Conv2d(joined, 2, 1),
        )

    def forward(self, patches: Tensor) -> Tensor:
        x, maps = self.stem(patches), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        size = maps[0].shape[2:]
        together = torch.cat([F.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps], 1)
        return F.interpolate(self.head(together).float(), patches.shape[2:], mode="bilinear", align_corners=False)


def _halving(channels: int, width: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
