"""DANCE's contour branch: merged features, edges and attention, and the snakes that deform contours.

Shapes: B images, N contours of P vertices, coordinates in network-input pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.dance.config import DanceConfig
from models.layers import conv_gn_relu, group_norm, init_msra, init_normal
from sharpcontour.errors import InputError
from sharpcontour.ipc import look_up, tall_map

STRIDE = 4  # of all maps of the branch, in network-input pixels


class ScaleHeads(nn.Module):
    """P2 to P5, each brought to stride 4 by convolutions and doublings, summed."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(self._head(in_channels, channels, doublings) for doublings in range(4))
        init_msra(self)

    @staticmethod
    def _head(in_channels: int, channels: int, doublings: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for i in range(max(1, doublings)):
            layers.append(conv_gn_relu(in_channels if i == 0 else channels, channels))
            if doublings > 0:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        return nn.Sequential(*layers)

    def forward(self, pyramid: dict[str, Tensor]) -> Tensor:
        maps = [head(pyramid[name]) for head, name in zip(self.levels, ("p2", "p3", "p4", "p5"), strict=True)]
        return maps[0] + maps[1] + maps[2] + maps[3]


class Snake(nn.Module):
    """Circular convolutions along contours: features (N, C, P) -> an offset for every vertex (N, 2, P)."""

    def __init__(self, config: DanceConfig) -> None:
        super().__init__()
        width, count = config.snake_channels, len(config.dilations) + 1
        self.head = CircularBlock(config.channels + 2, width, config.snake_neighbours, 1)
        self.residual = nn.ModuleList(
            CircularBlock(width, width, config.snake_neighbours, dilation) for dilation in config.dilations
        )
        self.fusion = nn.Conv1d(width * count, config.snake_global, 1)
        self.hidden = nn.Sequential(
            nn.Conv1d(width * count + config.snake_global, config.snake_global, 1),
            nn.ReLU(inplace=True),
            nn.Conv1d(config.snake_global, config.snake_hidden, 1),
            nn.ReLU(inplace=True),
        )
        self.offset = nn.Conv1d(config.snake_hidden, 2, 1)

    def forward(self, features: Tensor) -> Tensor:
        states = [self.head(features)]
        for block in self.residual:
            states.append(block(states[-1]) + states[-1])
        state = torch.cat(states, 1)
        pooled = self.fusion(state).amax(2, keepdim=True).expand(-1, -1, state.shape[2])
        hidden = self.hidden(torch.cat([pooled, state], 1))
        # An offset is a share of the box: half precision here would round vertices to whole pixels on large objects.
        with torch.autocast(hidden.device.type, enabled=False):
            return self.offset(hidden.float())


class CircularBlock(nn.Module):
    """Convolution along the closed contour, ReLU, then BatchNorm."""

    def __init__(self, channels: int, out_channels: int, neighbours: int, dilation: int) -> None:
        super().__init__()
        self.pad = neighbours * dilation
        self.conv = nn.Conv1d(channels, out_channels, 2 * neighbours + 1, dilation=dilation)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        around = torch.cat([x[..., -self.pad :], x, x[..., : self.pad]], -1)
        return self.norm(F.relu(self.conv(around)))


class ContourBranch(nn.Module):
    """Everything behind the pyramid but the detector."""

    def __init__(self, config: DanceConfig) -> None:
        super().__init__()
        reach = config.snake_neighbours * max(config.dilations, default=1)
        if config.vertices < reach:
            raise InputError(f"vertices is {config.vertices}; the circular convolutions need {reach} at least")
        self.attention_from = config.attention_from
        channels, inner = config.channels, config.attender_channels
        self.merge = ScaleHeads(config.backbone.fpn_channels, channels)
        self.predictor = nn.Sequential(conv_gn_relu(channels, channels), nn.Conv2d(channels, 1, 1))
        self.attender = nn.Sequential(
            nn.Conv2d(1, inner, 3, padding=1, bias=False),
            group_norm(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            group_norm(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, 1, 3, padding=1),
        )
        self.features = nn.Sequential(*(conv_gn_relu(channels, channels) for _ in range(config.feature_convs)))
        self.snakes = nn.ModuleList(Snake(config) for _ in range(config.steps))
        init_msra(self.predictor)
        init_msra(self.attender)
        init_normal(self.attender[-1])
        init_normal(self.features)
        init_normal(self.snakes)

    def forward(self, pyramid: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Edge probability (B, 1, H/4, W/4), and the map that contours read (B, 1 + C, H/4, W/4): attention first."""
        merged = self.merge(pyramid)
        edges = self.predictor(merged).float().sigmoid()
        attention = self.attender(1 - edges).float().sigmoid()
        return edges, torch.cat([attention, self.features(merged).float()], 1)

    def deform(self, maps: Tensor, image_index: Tensor, contours: Tensor, sides: Tensor) -> list[Tensor]:
        """Move contours (N, P, 2) step by step; all stages (N, P, 2), the given one left out.

        Args:
            maps: what contours read, from :meth:`forward`.
            image_index: (N,) int64.
            contours: (N, P, 2) initial contours.
            sides: (N, 2) width and height of each object's box: the longest possible move of a step.
        """
        if len(contours) == 0:
            # Circular batch norms cannot see an empty batch; every parameter still takes part in the graph.
            idle = maps.sum() + torch.stack([p.sum() for p in self.snakes.parameters()]).sum()
            return [contours + 0 * idle for _ in self.snakes]
        tall = tall_map(maps)
        stages = []
        for step, snake in enumerate(self.snakes):
            # Neither the places that are read nor the positions carry a gradient; the sum below does.
            seen = contours.detach()
            read = sample_contours(tall, len(maps), image_index, seen)
            low, high = seen.amin(1, keepdim=True), seen.amax(1, keepdim=True)
            place = (seen - low) / (high - low).clamp(min=1e-4)
            offset = snake(torch.cat([read[:, 1:], place.transpose(1, 2)], 1)).transpose(1, 2).tanh() * sides[:, None]
            if step >= self.attention_from:
                offset = offset * read[:, 0, :, None]
            contours = contours + offset
            stages.append(contours)
        return stages


def sample_contours(tall: Tensor, images: int, image_index: Tensor, contours: Tensor) -> Tensor:
    """Bilinear features at vertices (N, P, 2): (N, C, P). Beyond the border the map is mirrored.

    Same values as grid_sample with padding_mode="reflection" and align_corners=False on each image's own map.
    """
    column = _mirror(contours[..., 0] / STRIDE, tall.shape[3])
    row = _mirror(contours[..., 1] / STRIDE, tall.shape[2] // images)
    return look_up(tall, images, image_index, column, row)


def _mirror(cells: Tensor, size: int) -> Tensor:
    """Reflect coordinates at 0 and ``size``, then keep them between the outermost cell centres."""
    return (size - (cells.remainder(2 * size) - size).abs()).clamp(0.5, size - 0.5)
