"""Every choice of CondInst; the defaults are the published COCO model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from models.backbone import BackboneConfig, small_body
from models.fcos.detector import FCOSConfig, small_detector


@dataclass
class CondInstConfig:
    """Settings of CondInst: backbone, detector, mask branch and mask head.

    The detector's ``max_positives`` bounds the locations that train the mask head, too.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    fcos: FCOSConfig = field(default_factory=lambda: FCOSConfig(threshold_product=True))
    branch_channels: int = 128  # of the mask branch's convolutions
    branch_convs: int = 4
    mask_channels: int = 8  # of the map that all instances of an image share
    head_channels: int = 8  # of the mask head's two hidden layers
    semantic: bool = False  # train the mask branch on class maps as well
    semantic_weight: float = 1.0
    # What the refiner reads. Paper silent for a pyramid without P2: C2, which is low-level and frozen, along with P3;
    # or P3 alone.
    refiner_maps: Literal["c2_p3", "p3"] = "c2_p3"


def small() -> CondInstConfig:
    """The configuration of CondInst for the built-in shapes."""
    config = CondInstConfig(backbone=small_body(), branch_channels=48)
    small_detector(config.fcos)
    return config
