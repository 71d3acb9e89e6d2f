"""The network behind masks from anywhere: a small ResNet-FPN on the image, and a look at each mask in its window.

A window is a square around a mask's box, a little larger. Whatever its size on the image, it is :data:`SIDE` pixels
wide here, and everything about one instance happens in these window pixels: features, signed distance, contour.

Shapes: B views of images, K instances.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharpcontour.sampling import sample_features

SIDE = 256  # px, of every window
STRIDE = 4  # px of a view or window to a cell of the feature maps
CELLS = SIDE // STRIDE
DISTANCE_CELLS = SIDE // 2  # along a side of a map of signed distances


@dataclass
class AnyMaskConfig:
    """The network; the image is seen once, whatever the number of masks."""

    width: int = 48  # channels of the first residual stage; the later ones have 2, 4 and 8 times as many
    pyramid: int = 64  # channels of the pyramid
    window: tuple[int, int, int] = (32, 64, 96)  # channels of a window's maps at strides 4, 8 and 16
    mask_input: bool = True  # the window network sees the signed distance to the given mask; off: the image alone
    masks_per_image: int = 4  # worse masks of a training image's objects
    mask_weight: float = 1.0  # of the auxiliary loss, which asks every cell of a window for the object
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # of RGB, 0 to 255, subtracted
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)  # of RGB, then divided by


def conv_bn(channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    conv = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al., the basic block)."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = conv_bn(channels, out_channels, stride)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.second.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.norm.weight)  # begins as the shortcut alone
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out_channels:
            shortcut = nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) -> (B, out_channels, h / stride, w / stride)."""
        return F.relu(self.norm(self.second(self.first(x))) + self.shortcut(x))


class ImageNetwork(nn.Module):
    """Normalised views (B, 3, H, W), H and W multiples of 32 -> features (B, pyramid, H/4, W/4).

    An 18-layer residual network with three small convolutions as its stem, and the top-down path of a feature pyramid,
    of which only the finest level is kept.
    """

    def __init__(self, config: AnyMaskConfig) -> None:
        super().__init__()
        width = config.width
        self.stem = nn.Sequential(
            conv_bn(3, width // 2, 2), conv_bn(width // 2, width // 2), conv_bn(width // 2, width, 2)
        )
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.ModuleList()
        before = width
        for k, channels in enumerate(widths):
            first = ResidualBlock(before, channels, 1 if k == 0 else 2)
            self.stages.append(nn.Sequential(first, ResidualBlock(channels, channels, 1)))
            before = channels
        self.laterals = nn.ModuleList(nn.Conv2d(channels, config.pyramid, 1) for channels in widths)
        self.output = nn.Conv2d(config.pyramid, config.pyramid, 3, padding=1)

    def forward(self, views: Tensor) -> Tensor:
        x, maps = self.stem(views), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        merged = self.laterals[3](maps[3])
        for lateral, finer in zip(reversed(list(self.laterals)[:3]), reversed(maps[:3]), strict=True):
            merged = lateral(finer) + F.interpolate(merged, finer.shape[2:], mode="nearest")
        return self.output(merged)


class WindowNetwork(nn.Module):
    """What is to be seen of one instance: image features and its given mask, from stride 4 down to 16 and back.

    The means of the features inside and outside of the given mask go to every cell, since what belongs to an object
    often looks like the rest of it.
    """

    def __init__(self, config: AnyMaskConfig) -> None:
        super().__init__()
        fine, middle, coarse = config.window
        mask_channels = 4 if config.mask_input else 0  # 2 x 2 cells of the distance map for each cell here
        self.enter = nn.Sequential(conv_bn(config.pyramid + mask_channels, fine), conv_bn(fine, fine))
        self.down = nn.Sequential(conv_bn(fine, middle, 2), conv_bn(middle, middle))
        self.bottom = nn.Sequential(conv_bn(middle, coarse, 2), conv_bn(coarse, coarse))
        if config.mask_input:
            self.sides = nn.Linear(2 * coarse, coarse)
        self.up_bottom = nn.Conv2d(coarse, middle, 1)
        self.merge_middle = conv_bn(middle, middle)
        self.up_middle = nn.Conv2d(middle, fine, 1)
        self.merge_fine = conv_bn(fine, fine)
        self.mask_input = config.mask_input

    def forward(self, features: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Image features (K, C, 64, 64) and signed distances (K, 1, 128, 128) of windows.

        Returns:
            Fine features (K, C', 64, 64), which points are looked up in, and coarse ones (K, C'', 16, 16), which the
            controller reads.
        """
        if self.mask_input:
            features = torch.cat([features, _two_by_two(distance).to(features.dtype)], 1)
        fine = self.enter(features)
        middle = self.down(fine)
        coarse = self.bottom(middle)
        if self.mask_input:
            inside = (F.adaptive_avg_pool2d((distance < 0).float(), coarse.shape[2:])).to(coarse.dtype)
            coarse = (
                coarse + self.sides(torch.cat([_mean(coarse, inside), _mean(coarse, 1 - inside)], 1))[..., None, None]
            )
        middle = self.merge_middle(middle + _enlarged(self.up_bottom(coarse)))
        return self.merge_fine(fine + _enlarged(self.up_middle(middle))), coarse


def _two_by_two(x: Tensor) -> Tensor:
    """(K, 1, 2h, 2w) -> (K, 4, h, w), as ``F.pixel_unshuffle``, which leaves K = 0 as it was."""
    k, _, height, width = x.shape
    cells = x.reshape(k, height // 2, 2, width // 2, 2)
    return cells.permute(0, 2, 4, 1, 3).reshape(k, 4, height // 2, width // 2)


def _mean(features: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over the cells: (K, C, h, w) and (K, 1, h, w) -> (K, C)."""
    return (features * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1e-3)


def _enlarged(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)


def cell_centres(windows: Tensor) -> Tensor:
    """Centres of the 64 x 64 cells of windows (K, 4) xyxy: (K, 4096, 2) x, y in the same pixels, row by row."""
    step = (torch.arange(CELLS, device=windows.device) + 0.5) / CELLS
    size = windows[:, 2:] - windows[:, :2]
    x = windows[:, :1] + step * size[:, :1]
    y = windows[:, 1:2] + step * size[:, 1:]
    return torch.stack([x[:, None].expand(-1, CELLS, -1), y[:, :, None].expand(-1, -1, CELLS)], -1).flatten(1, 2)


def window_features(features: Tensor, view: Tensor, windows: Tensor) -> Tensor:
    """Image features at the centres of the cells of windows, bilinear.

    Beyond a view lies the padding of its batch, and beyond that the border of the padding goes on.

    Args:
        features: (B, C, H/4, W/4) of the views.
        view: (K,) int64, the view that each window lies on.
        windows: (K, 4) xyxy in pixels of the views.

    Returns:
        (K, C, 64, 64).
    """
    with torch.autocast(features.device.type, enabled=False):  # half precision would round places to whole cells
        sampled = sample_features(features.float(), STRIDE, view, cell_centres(windows))
    return sampled.unflatten(2, (CELLS, CELLS))
