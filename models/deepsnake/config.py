"""Every choice of DeepSnake; the defaults are the published baseline on FCOS (DANCE's ``dsnake_baseline``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from models.backbone import BackboneConfig, small_body
from models.fcos.detector import FCOSConfig, small_detector
from models.snake.network import SnakeConfig, small_snake


@dataclass
class DeepSnakeConfig:
    """Settings of DeepSnake: backbone, detector and contour branch.

    ``supervision`` "baseline" compares the contours of all steps in box sides, "original" (the authors' own code) the
    last one alone, in pixels, and begins at the octagon with the extreme points among its vertices in training too.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    fcos: FCOSConfig = field(default_factory=FCOSConfig)
    supervision: Literal["baseline", "original"] = "baseline"
    initial_vertices: int = 40  # of the diamond that extreme points are found from; a multiple of four
    vertices: int = 128  # of every contour
    steps: int = 3  # deformations, each with a network of its own
    channels: int = 256  # of the features at stride 4
    feature_convs: int = 2  # 3x3 convolutions between P2 and the contours
    snake: SnakeConfig = field(default_factory=SnakeConfig)  # of every deformation
    loss_beta: float = 0.11  # shorter box sides, where a loss turns from quadratic to linear ("baseline")
    extremes_weight: float = 10.0  # of the extreme points' loss ("baseline"; "original" has 1)
    contour_weight: float = 10.0  # of the contour losses of all steps together ("baseline"; "original" has 1)


def small() -> DeepSnakeConfig:
    """The configuration of DeepSnake for the built-in shapes."""
    config = DeepSnakeConfig(backbone=small_body(), channels=48, vertices=128, snake=small_snake())
    small_detector(config.fcos)
    return config
