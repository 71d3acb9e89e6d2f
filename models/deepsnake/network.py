"""DeepSnake's contour branch: from a box to its object's extreme points, from their octagon to the outline.

Shapes: B images, N contours of P vertices, coordinates in network-input pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.deepsnake.config import DeepSnakeConfig
from models.layers import conv_gn_relu, init_normal
from models.snake.network import ContourMap, Snake, without_contours
from models.snake.polygons import diamonds
from sharpcontour.errors import InputError


class SnakeBranch(nn.Module):
    """DeepSnake's contour branch: everything behind the pyramid but the detector.

    Gradients flow through the places that features are read at.
    """

    def __init__(self, config: DeepSnakeConfig) -> None:
        super().__init__()
        if config.initial_vertices % 4:
            raise InputError(f"initial_vertices is {config.initial_vertices}; it must be a multiple of 4")
        config.snake.check(config.initial_vertices, "initial_vertices")
        config.snake.check(config.vertices, "vertices")
        self.initial_vertices = config.initial_vertices
        before, channels = config.backbone.fpn_channels, config.channels
        self.features = nn.Sequential(
            *(conv_gn_relu(before if i == 0 else channels, channels) for i in range(config.feature_convs))
        )
        self.fuse = nn.Conv1d(2 * channels, channels, 1)
        self.initial = Snake(config.snake, channels)
        self.snakes = nn.ModuleList(Snake(config.snake, channels) for _ in range(config.steps))
        init_normal(self)

    def forward(self, pyramid: dict[str, Tensor]) -> Tensor:
        """The map (B, C, H/4, W/4) that contours read."""
        return self.features(pyramid["p2"]).float()

    def extreme_points(self, maps: Tensor, image_index: Tensor, boxes: Tensor) -> Tensor:
        """The top, left, bottom and right point (N, 4, 2) of the objects in boxes (N, 4) on images (N,)."""
        if len(boxes) == 0:
            return boxes.view(0, 4, 2) + without_contours(maps, self.fuse, self.initial)
        diamond = diamonds(boxes, self.initial_vertices)
        centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
        with _full_precision(maps):
            read = ContourMap(maps, "zeros").read(image_index, torch.cat([diamond, centre], 1))
            vertex, middle = read[..., :-1], read[..., -1:]
            features = self.fuse(torch.cat([vertex, middle.expand_as(vertex)], 1))
            return self._moved(self.initial, features, diamond)[:, :: self.initial_vertices // 4]

    def deform(self, maps: Tensor, image_index: Tensor, contours: Tensor) -> list[Tensor]:
        """Move contours (N, P, 2) step by step; returns the contours (N, P, 2) after every step."""
        if len(contours) == 0:
            return [contours + without_contours(maps, self.snakes) for _ in self.snakes]
        read_from, stages = ContourMap(maps, "zeros"), []
        with _full_precision(maps):
            for snake in self.snakes:
                contours = self._moved(snake, read_from.read(image_index, contours), contours)
                stages.append(contours)
        return stages

    @staticmethod
    def _moved(snake: nn.Module, features: Tensor, contours: Tensor) -> Tensor:
        place = contours - contours.amin(1, keepdim=True)
        return contours + snake(torch.cat([features, place.transpose(1, 2)], 1)).transpose(1, 2)


def _full_precision(maps: Tensor) -> torch.autocast:
    """No autocast on the device of ``maps``: to the networks positions are whole pixels, which bf16 would round."""
    return torch.autocast(maps.device.type, enabled=False)
