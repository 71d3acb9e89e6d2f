"""Every choice of PointRend, and the published one as a preset."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.backbone import CaffeBody, caffe_body
from models.pointrend.heads import CoarseHeadConfig, PointHeadConfig
from models.two_stage.host import TwoStageConfig, small_detector
from models.two_stage.roi import BoxHeadConfig


@dataclass
class PointRendConfig(TwoStageConfig):
    """Settings of PointRend with FPN; the defaults are Detectron2's heads on torchvision's ImageNet ResNet-50."""

    box_head: BoxHeadConfig = field(default_factory=lambda: BoxHeadConfig(masks_on_predictions=True))
    coarse_head: CoarseHeadConfig = field(default_factory=CoarseHeadConfig)
    point_head: PointHeadConfig = field(default_factory=PointHeadConfig)


def detectron2(name: CaffeBody = "resnet50") -> PointRendConfig:
    """Detectron2's pointrend_rcnn_{R_50,R_101,X_101_32x8d}_FPN."""
    return PointRendConfig(backbone=caffe_body(name))


def small() -> PointRendConfig:
    """The configuration of PointRend for the built-in shapes."""
    config = PointRendConfig(coarse_head=CoarseHeadConfig(channels=256), point_head=PointHeadConfig(channels=64))
    small_detector(config)
    return config
