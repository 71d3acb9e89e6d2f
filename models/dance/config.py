"""Every choice of DANCE; the defaults are the published COCO model."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.backbone import BackboneConfig, small_body
from models.fcos.detector import FCOSConfig, small_detector
from models.snake.network import SnakeConfig, small_snake


@dataclass
class DanceConfig:
    """Settings of DANCE: backbone, detector and contour branch.

    The detector learns the extreme points of an object's largest part, the original those of its first polygon: the
    order of polygons says nothing of an object, and run lengths have none. On COCO that loss differs by 1.7 %.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    fcos: FCOSConfig = field(default_factory=lambda: FCOSConfig(extreme_points=True))
    vertices: int = 196  # of every contour
    steps: int = 3  # deformations, each with a network of its own
    attention_from: int = 1  # number of the first deformation that attention scales, from 0
    channels: int = 256  # of the merged features at stride 4
    attender_channels: int = 32  # of the two hidden layers between edges and attention
    feature_convs: int = 2  # 3x3 convolutions between the merged features and the contours
    snake: SnakeConfig = field(default_factory=SnakeConfig)  # of every deformation
    loss_beta: float = 0.11  # box sides, where the contour loss turns from quadratic to linear
    contour_weight: float = 10.0  # of the contour losses of all steps together
    edge_weight: float = 1.0  # of the edge loss


def small() -> DanceConfig:
    """The configuration of DANCE for the built-in shapes."""
    config = DanceConfig(backbone=small_body(), channels=48, vertices=128, snake=small_snake())
    small_detector(config.fcos)
    return config
