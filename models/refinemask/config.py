"""Every choice of RefineMask, with the published values as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.backbone import BackboneConfig
from models.refinemask.heads import RefineHeadConfig
from models.two_stage.host import TwoStageConfig, small_detector
from models.two_stage.roi import BoxHeadConfig
from models.two_stage.rpn import RPNConfig


@dataclass
class RefineMaskConfig(TwoStageConfig):
    """Settings of RefineMask with FPN: the published R50, from torchvision's ImageNet weights like the original.

    Its detector is mmdet's, whose box losses count twice here. Some of its habits are left out: box sizes are bounded
    below too (at 1/62 of a proposal's); mask targets of COCO are drawn from polygons at each size (here they come from
    the masks at network-input size, as the original's do on Cityscapes); the box head's first layers begin as Xavier
    says; the level of a box is rounded with 1e-6 instead of 1e-8; and boxes without an area remain proposals and
    detections, though they have no pixel.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(norm="affine_bn"))
    rpn: RPNConfig = field(default_factory=lambda: RPNConfig(claim_iou=0.3, claim_seizes=True, normaliser="sampled"))
    box_head: BoxHeadConfig = field(default_factory=lambda: BoxHeadConfig(claim_seizes=True, loss_weight=2.0))
    refine_head: RefineHeadConfig = field(default_factory=RefineHeadConfig)


def small() -> RefineMaskConfig:
    """The configuration of RefineMask for the built-in shapes."""
    config = RefineMaskConfig(refine_head=RefineHeadConfig(channels=64, instance_convs=1, semantic_convs=2))
    small_detector(config)
    return config
