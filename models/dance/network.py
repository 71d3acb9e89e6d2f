"""DANCE's contour branch: merged features, edges and attention, and the steps that deform contours.

Shapes: B images, N contours of P vertices, coordinates in network-input pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.dance.config import DanceConfig
from models.layers import conv_gn_relu, group_norm, init_msra, init_normal
from models.snake.network import ContourMap, Snake, without_contours


class ScaleHeads(nn.Module):
    """P2 to P5 as one map: each is brought to stride 4 by convolutions and doublings, and all are summed."""

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


class ContourBranch(nn.Module):
    """DANCE's contour branch: everything behind the pyramid but the detector."""

    def __init__(self, config: DanceConfig) -> None:
        super().__init__()
        config.snake.check(config.vertices, "vertices")
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
        self.snakes = nn.ModuleList(Snake(config.snake, channels) for _ in range(config.steps))
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
        """Move contours (N, P, 2) step by step; returns the contours (N, P, 2) after every step.

        Args:
            maps: what contours read, from :meth:`forward`.
            image_index: (N,) int64.
            contours: (N, P, 2) initial contours.
            sides: (N, 2) width and height of each object's box: the longest possible move of a step.
        """
        if len(contours) == 0:
            return [contours + without_contours(maps, self.snakes) for _ in self.snakes]
        read_from = ContourMap(maps, "mirror")
        stages = []
        for step, snake in enumerate(self.snakes):
            # Neither the places that are read nor the positions carry a gradient; the sum below does.
            seen = contours.detach()
            read = read_from.read(image_index, seen)
            low, high = seen.amin(1, keepdim=True), seen.amax(1, keepdim=True)
            place = (seen - low) / (high - low).clamp(min=1e-4)
            offset = snake(torch.cat([read[:, 1:], place.transpose(1, 2)], 1)).transpose(1, 2).tanh() * sides[:, None]
            if step >= self.attention_from:
                offset = offset * read[:, 0, :, None]
            contours = contours + offset
            stages.append(contours)
        return stages
