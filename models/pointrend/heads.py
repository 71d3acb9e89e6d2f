"""PointRend's two heads: a coarse mask for each class, and a classifier of single points.

Shapes: R RoIs, C classes, Q points of each RoI.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.two_stage.roi import logits_of_class


@dataclass
class CoarseHeadConfig:
    """Settings of the coarse masks; the defaults are the published ones."""

    resolution: int = 14  # samples of P2 along a side of a RoI; the mask has half as many cells
    num_fcs: int = 2
    channels: int = 1024  # of the fully connected layers


@dataclass
class PointHeadConfig:
    """Settings of the point head, of the points that learn, and of subdivision; the defaults are the published ones."""

    num_fcs: int = 3
    channels: int = 256
    train_points: int = 196  # of a RoI
    oversample: int = 3  # candidates: so many times the train_points
    importance: float = 0.75  # share of the train_points that are the most uncertain candidates; the rest is random
    grid: int = 28  # cells along a side of the first mask
    subdivisions: int = 3  # each doubles the mask's resolution: 28 -> 224
    points: int = 784  # predicted anew after each doubling


class CoarseHead(nn.Module):
    """The head of coarse masks: P2 inside a box -> a mask of 7 x 7 cells for each class.

    Args:
        config: all choices.
        channels: of the pyramid.
        num_classes: C.
    """

    def __init__(self, config: CoarseHeadConfig, channels: int, num_classes: int) -> None:
        super().__init__()
        self.side = config.resolution // 2
        self.reduce = nn.Conv2d(channels, channels, 2, stride=2)
        widths = [channels * self.side**2] + [config.channels] * config.num_fcs
        self.fcs = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.predictor = nn.Linear(widths[-1], num_classes * self.side**2)
        nn.init.kaiming_normal_(self.reduce.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.reduce.bias)  # type: ignore[arg-type]
        for layer in self.fcs:
            nn.init.kaiming_uniform_(layer.weight, a=1)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(R, channels, 14, 14) -> logits (R, C, 7, 7), float32."""
        x = F.relu(self.reduce(features)).flatten(1)
        for layer in self.fcs:
            x = F.relu(layer(x))
        return self.predictor(x).float().unflatten(1, (-1, self.side, self.side))


class PointHead(nn.Module):
    """The point head, shared by all points; it sees the coarse logits of all classes again at every layer.

    Args:
        config: all choices.
        channels: of the pyramid.
        num_classes: C.
    """

    def __init__(self, config: PointHeadConfig, channels: int, num_classes: int) -> None:
        super().__init__()
        widths = [channels] + [config.channels] * config.num_fcs
        layers = [nn.Conv1d(a + num_classes, b, 1) for a, b in itertools.pairwise(widths)]
        self.fcs = nn.ModuleList(layers)
        self.predictor = nn.Conv1d(widths[-1] + num_classes, num_classes, 1)
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=0.001)
        for layer in (*layers, self.predictor):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, coarse: Tensor, labels: Tensor) -> Tensor:
        """Features (R, channels, Q), coarse logits (R, C, Q) -> logits (R, Q) of the classes ``labels`` (R,)."""
        x = features
        for layer in self.fcs:
            x = F.relu(layer(torch.cat([x, coarse.to(x.dtype)], 1)))
        return logits_of_class(self.predictor, torch.cat([x, coarse.to(x.dtype)], 1), labels)
