"""Every choice of Mask R-CNN, and the three published versions of it as presets."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.backbone import CaffeBody, caffe_body
from models.mask_rcnn.mask_head import MaskHeadConfig
from models.two_stage.host import TwoStageConfig, small_detector
from models.two_stage.roi import PoolConfig


@dataclass
class MaskRCNNConfig(TwoStageConfig):
    """Settings of Mask R-CNN with FPN; the defaults are Detectron2's heads on torchvision's ImageNet ResNet-50."""

    mask_head: MaskHeadConfig = field(default_factory=MaskHeadConfig)


def detectron2(name: CaffeBody = "resnet50") -> MaskRCNNConfig:
    """The improved baseline, "Mask R-CNN*" in Table 1: Detectron2's mask_rcnn_{R_50,R_101,X_101_32x8d}_FPN.

    The stem and res2 stay frozen, as there; for a host that goes on from converted weights too if these are named as
    ``backbone.weights``.
    """
    return MaskRCNNConfig(backbone=caffe_body(name))


def torchvision() -> MaskRCNNConfig:
    """torchvision's maskrcnn_resnet50_fpn. Its weights trained on COCO also need ``backbone.norm_eps`` = 0."""
    config = MaskRCNNConfig()
    # The same values as 0 to 255 would give, but for the last bits.
    config.backbone.pixel_range = 1.0
    config.backbone.pixel_mean, config.backbone.pixel_std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    rpn, box, mask = config.rpn, config.box_head, config.mask_head
    rpn.anchors, rpn.loss_beta, rpn.normaliser = "rounded", 1 / 9, "sampled"
    rpn.post_nms_train, rpn.nms_score, rpn.min_side = 2000, "probability", 1e-3
    config.pool = PoolConfig(aligned=False, sampling_ratio=2, levels="torchvision")
    box.loss_beta, box.min_side, box.init = 1 / 9, 1e-2, "torchvision"
    mask.targets, mask.paste, mask.init = "soft", "integer", "torchvision"
    return config


def torchvision_v2() -> MaskRCNNConfig:
    """torchvision's maskrcnn_resnet50_fpn_v2: batch norm everywhere, deeper heads."""
    config = torchvision()
    config.backbone.norm, config.backbone.fpn_norm = "bn", "bn"
    config.rpn.num_convs = 2
    config.box_head.num_convs, config.box_head.num_fcs, config.box_head.norm = 4, 1, "bn"
    config.mask_head.norm = "bn"
    return config


def original(name: CaffeBody = "resnet50") -> MaskRCNNConfig:
    """The authors' own Mask R-CNN (Detectron), which is "Mask R-CNN" in the paper's Table 1.

    Some of its habits are left out: negatives of the proposal network are drawn without replacement; mask targets come
    from the assigned object's pixels, not from the polygon whose bounding box fits best; the smallest proposal is a
    pixel of the network's input, not of the image; and the proposal losses are divided by 256 for each image.
    """
    config = MaskRCNNConfig(backbone=caffe_body(name))
    config.backbone.pixel_mean, config.backbone.pixel_std = (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0)
    rpn, box, mask = config.rpn, config.box_head, config.mask_head
    rpn.anchors, rpn.inside_only, rpn.loss_beta = "legacy", True, 1 / 9
    rpn.post_nms_train, rpn.post_nms_together, rpn.nms_score, rpn.min_side = 2000, True, "probability", 1.0
    config.pool = PoolConfig(aligned=False, sampling_ratio=2, levels="detectron", end=-1.0)
    box.loss_beta = 1.0
    mask.paste, mask.init = "integer", "detectron"
    return config


def small() -> MaskRCNNConfig:
    """The configuration of Mask R-CNN for the built-in shapes."""
    config = MaskRCNNConfig(mask_head=MaskHeadConfig(num_convs=2, channels=64))
    small_detector(config)
    return config
