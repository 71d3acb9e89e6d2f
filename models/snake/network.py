"""Circular convolutions along closed contours, which DANCE and DeepSnake deform contours with.

Shapes: B images, N contours of P vertices, coordinates in network-input pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import in_float32
from sharpcontour.errors import InputError
from sharpcontour.sampling import look_up, tall_map

STRIDE = 4  # of the maps that contours read, in network-input pixels


@dataclass
class SnakeConfig:
    """Settings of one deformation network; the defaults are the published ones."""

    channels: int = 128  # of the circular convolutions
    pooled: int = 256  # of a contour's pooled feature, and of the first output layer
    hidden: int = 64  # of the second output layer
    neighbours: int = 4  # vertices a circular convolution sees on either side
    dilations: tuple[int, ...] = (1, 1, 1, 2, 2, 4, 4)  # of the residual circular convolutions

    def check(self, vertices: int, name: str) -> None:
        """Raise InputError where contours of ``vertices`` vertices are too short for the convolutions."""
        reach = self.neighbours * max(self.dilations, default=1)
        if vertices < reach:
            raise InputError(f"{name} is {vertices}; the circular convolutions need {reach} at least")


def small_snake() -> SnakeConfig:
    """Settings of the deformation network for the built-in shapes."""
    return SnakeConfig(channels=32, pooled=64, hidden=32)


class Snake(nn.Module):
    """The deformation network: features and two positions of every vertex (N, C + 2, P) -> its offset (N, 2, P)."""

    def __init__(self, config: SnakeConfig, feature_channels: int) -> None:
        super().__init__()
        width, count = config.channels, len(config.dilations) + 1
        self.head = CircularBlock(feature_channels + 2, width, config.neighbours, 1)
        self.residual = nn.ModuleList(
            CircularBlock(width, width, config.neighbours, dilation) for dilation in config.dilations
        )
        self.fusion = nn.Conv1d(width * count, config.pooled, 1)
        self.hidden = nn.Sequential(
            nn.Conv1d(width * count + config.pooled, config.pooled, 1),
            nn.ReLU(inplace=True),
            nn.Conv1d(config.pooled, config.hidden, 1),
            nn.ReLU(inplace=True),
        )
        self.offset = nn.Conv1d(config.hidden, 2, 1)

    def forward(self, features: Tensor) -> Tensor:
        states = [self.head(features)]
        for block in self.residual:
            states.append(block(states[-1]) + states[-1])
        state = torch.cat(states, 1)
        pooled = self.fusion(state).amax(2, keepdim=True).expand(-1, -1, state.shape[2])
        hidden = self.hidden(torch.cat([pooled, state], 1))
        return in_float32(self.offset, hidden)


class CircularBlock(nn.Module):
    """A convolution along the closed contour, ReLU, then BatchNorm."""

    def __init__(self, channels: int, out_channels: int, neighbours: int, dilation: int) -> None:
        super().__init__()
        self.pad = neighbours * dilation
        self.conv = nn.Conv1d(channels, out_channels, 2 * neighbours + 1, dilation=dilation)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        around = torch.cat([x[..., -self.pad :], x, x[..., : self.pad]], -1)
        return self.norm(F.relu(self.conv(around)))


class ContourMap:
    """A map (B, C, h, w) of stride 4 that contours on any image of the batch are read from.

    Args:
        maps: (B, C, h, w).
        beyond: what lies outside an image: "mirror" (of the map), or "zeros".
    """

    def __init__(self, maps: Tensor, beyond: str) -> None:
        self.images, self.rows, self.columns = len(maps), maps.shape[2], maps.shape[3]
        self.mirror = beyond == "mirror"
        # One frame of zeros is all that a look-up from beyond the border can reach.
        self.tall = tall_map(maps if self.mirror else F.pad(maps, (1, 1, 1, 1)))

    def read(self, image_index: Tensor, contours: Tensor) -> Tensor:
        """Bilinear features at vertices (N, P, 2) of images (N,): (N, C, P).

        Equals grid_sample on each image's own map with padding_mode "reflection" or "zeros", align_corners=False.
        """
        column, row = (contours / STRIDE).unbind(-1)
        if self.mirror:
            column, row = _mirror(column, self.columns), _mirror(row, self.rows)
        else:
            column, row = (column + 1).clamp(0.5, self.columns + 1.5), (row + 1).clamp(0.5, self.rows + 1.5)
        return look_up(self.tall, self.images, image_index, column, row)


def _mirror(cells: Tensor, size: int) -> Tensor:
    """Reflect coordinates at 0 and ``size``, then keep them between the outermost cell centres."""
    return (size - (cells.remainder(2 * size) - size).abs()).clamp(0.5, size - 0.5)


def contour_loss(contours: Tensor, goal: Tensor, scale: Tensor, beta: float) -> Tensor:
    """Smooth L1 between vertices (N, P, 2), the mean over all coordinates.

    Args:
        contours, goal: in pixels.
        scale: (N, 2) or (N, 1), pixels that errors are measured in.
        beta: of these, where the loss turns from quadratic to linear.
    """
    if len(goal) == 0:
        return contours.sum()
    return F.smooth_l1_loss(contours / scale[:, None], goal / scale[:, None], beta=beta)


def without_contours(maps: Tensor, *networks: nn.Module) -> Tensor:
    """0, with a gradient of 0 for everything: circular batch norms cannot see an empty batch."""
    return 0 * (maps.sum() + torch.stack([p.sum() for network in networks for p in network.parameters()]).sum())
