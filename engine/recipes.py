"""All recipes by name: those of ``engine/base_recipes.py`` and the schedules that the models were published with.

``--recipe`` names one, ``--set`` changes single values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from data.config import DataConfig
from engine.base_recipes import cityscapes, coco_1x, coco_3x, photos, shapes, small
from engine.config import Config
from sharpcontour.errors import InputError

if TYPE_CHECKING:  # the recipes' names are options of commands, whose --help needs no models
    from models.backbone import CaffeBody
    from models.mask_rcnn import MaskRCNNConfig


def anymask_photos(model: str, refine: bool) -> Config:
    """AnyMask on crops of 256 px around objects, for your own photographs: hours on a CPU, minutes on a GPU.

    What differs from the paper's settings: phi reads where the given contour is, its loss is not focal (gamma 0), so
    that phi is a probability and is sharp where it is sure, a vertex stops where phi crosses one half, and moves of
    little expected gain or of hardly a pixel are taken back, so that good masks stay.
    """
    config = coco_1x(model, refine)
    _only_for("anymask", config)
    config.data = DataConfig(
        name="coco",
        object_crop=256,
        object_share=(0.4, 0.95),
        colour=1.0,
        keep_empty=False,
        workers=2,
        test_short_side=480,
        test_max_side=640,
    )
    train = config.train
    train.images_per_batch, train.reference_batch, train.iterations = 8, 8, 12_000
    train.optimizer, train.base_lr, train.weight_decay, train.clip_grad_norm = "adamw", 1.5e-3, 0.01, 10.0
    train.schedule, train.steps, train.warmup_iterations, train.amp = "cosine", (), 200, "bf16"
    train.checkpoint_period, train.eval_period, train.log_period = 200, 0, 20
    sharp = config.sharpcontour
    sharp.classifier.distance, sharp.classifier.feature_channels, sharp.classifier.hidden = True, 24, 24
    sharp.points.points, sharp.points.given, sharp.points.sigma = 256, 0.4, 0.03
    sharp.loss.gamma = 0.0
    evolution = sharp.evolution
    evolution.vertices, evolution.interpolate_flip, evolution.min_gain = 256, True, 0.002
    evolution.normal_window = 12.0  # of the steps of blocky masks normals of their own would cross
    sharp.tracing.min_move = 1.5
    return config


def condinst_r50_1x(model: str, refine: bool) -> Config:
    """CondInst's MS_R_50_1x. Its ImageNet weights must be given: host.backbone.weights=FILE (convert.py)."""
    return _condinst(coco_1x(model, refine), "resnet50")


def condinst_r50_3x(model: str, refine: bool) -> Config:
    """CondInst's MS_R_50_3x; with host.semantic=true its MS_R_50_3x_sem."""
    return _condinst(coco_3x(model, refine), "resnet50")


def condinst_r101_3x(model: str, refine: bool) -> Config:
    """CondInst's MS_R_101_3x; with host.semantic=true its MS_R_101_3x_sem."""
    return _condinst(coco_3x(model, refine), "resnet101")


def dance_r50_1x(model: str, refine: bool) -> Config:
    """DANCE's base configuration: 8 images at rate 0.005, 180k updates.

    The published runs started from Caffe's ResNet: host.backbone.weights=FILE, channel_order=bgr, pixel_std=1,1,1,
    pixel_mean=103.53,116.28,123.675, stride_in_1x1=true. Here torchvision's takes its place.
    """
    return _published("dance", coco_1x(model, refine), images=8, iterations=180_000, steps=(120_000, 160_000))


def dance_r50_3x(model: str, refine: bool) -> Config:
    """The schedule of DANCE's released ResNet-50 model: 8 images, 540k updates."""
    return _published("dance", coco_1x(model, refine), images=8, iterations=540_000, steps=(480_000, 520_000))


def dance_r101_3x(model: str, refine: bool) -> Config:
    """The schedule of DANCE's released ResNet-101 model: 6 images at rate 0.00375, 720k updates."""
    config = _published("dance", coco_1x(model, refine), images=6, iterations=720_000, steps=(660_000, 700_000))
    config.host.backbone.name = "resnet101"
    return config


def deepsnake_r50_1x(model: str, refine: bool) -> Config:
    """DeepSnake on FCOS as in DANCE's comparison (Dsnake_R_50_1x): 8 images at rate 0.005, 180k updates."""
    return _published("deepsnake", coco_1x(model, refine), images=8, iterations=180_000, steps=(120_000, 160_000))


def mask_rcnn_r50_1x(model: str, refine: bool) -> Config:
    """Detectron2's mask_rcnn_R_50_FPN_1x. Its ImageNet weights must be given: host.backbone.weights=FILE."""
    return _detectron2(coco_1x(model, refine), "resnet50")


def mask_rcnn_r50_3x(model: str, refine: bool) -> Config:
    """Detectron2's mask_rcnn_R_50_FPN_3x."""
    return _detectron2(coco_3x(model, refine), "resnet50")


def mask_rcnn_r101_3x(model: str, refine: bool) -> Config:
    """Detectron2's mask_rcnn_R_101_FPN_3x."""
    return _detectron2(coco_3x(model, refine), "resnet101")


def mask_rcnn_x101_3x(model: str, refine: bool) -> Config:
    """Detectron2's mask_rcnn_X_101_32x8d_FPN_3x."""
    return _detectron2(coco_3x(model, refine), "resnext101_32x8d")


def mask_rcnn_torchvision(model: str, refine: bool) -> Config:
    """torchvision's maskrcnn_resnet50_fpn: 26 epochs of COCO at one size."""
    from models.mask_rcnn import torchvision

    config = _mask_rcnn(coco_1x(model, refine), torchvision())
    config.data.short_sides, config.data.resize = (800,), "torchvision"
    # 117,266 images with objects: 7,329 updates an epoch.
    config.train.iterations, config.train.steps = 190_554, (117_264, 161_238)
    return config


def mask_rcnn_original_2x(model: str, refine: bool) -> Config:
    """The authors' own e2e_mask_rcnn_R-50-FPN_2x: one size, biases at twice the rate and without decay."""
    from models.mask_rcnn import original

    config = _mask_rcnn(coco_1x(model, refine), original())
    config.data.short_sides, config.data.resize = (800,), "mmcv"
    train = config.train
    train.iterations, train.steps = 180_000, (120_000, 160_000)
    train.warmup_iterations, train.warmup_factor = 500, 1 / 3
    train.bias_lr_factor, train.bias_weight_decay = 2.0, 0.0
    return config


def pointrend_r50_1x(model: str, refine: bool) -> Config:
    """Detectron2's pointrend_rcnn_R_50_FPN_1x. Its ImageNet weights must be given: host.backbone.weights=FILE."""
    return _pointrend(coco_1x(model, refine), "resnet50")


def pointrend_r50_3x(model: str, refine: bool) -> Config:
    """Detectron2's pointrend_rcnn_R_50_FPN_3x."""
    return _pointrend(coco_3x(model, refine), "resnet50")


def pointrend_r101_3x(model: str, refine: bool) -> Config:
    """Detectron2's pointrend_rcnn_R_101_FPN_3x."""
    return _pointrend(coco_3x(model, refine), "resnet101")


def pointrend_x101_3x(model: str, refine: bool) -> Config:
    """Detectron2's pointrend_rcnn_X_101_32x8d_FPN_3x."""
    return _pointrend(coco_3x(model, refine), "resnext101_32x8d")


def pointrend_cityscapes(model: str, refine: bool) -> Config:
    """Detectron2's pointrend_rcnn_R_50_FPN_1x_cityscapes; like the recipe cityscapes, from Caffe's weights."""
    return _pointrend(cityscapes(model, refine), "resnet50")


def refinemask_r50_1x(model: str, refine: bool) -> Config:
    """RefineMask's r50-refinemask-1x: 12 epochs of COCO at one size, gradients clipped at 35."""
    config = _refinemask(coco_1x(model, refine))
    config.data.short_sides = (800,)
    train = config.train
    # 117,266 images with objects: 7,330 updates an epoch; the rate falls after 8 and 11 of them.
    train.iterations, train.steps = 87_960, (58_640, 80_630)
    return config


def refinemask_r50_2x(model: str, refine: bool) -> Config:
    """RefineMask's r50-refinemask-2x: 24 epochs; with host.backbone.name=resnet101 its R101."""
    config = refinemask_r50_1x(model, refine)
    config.train.iterations, config.train.steps = 175_920, (117_280, 161_260)
    return config


def refinemask_cityscapes(model: str, refine: bool) -> Config:
    """RefineMask's R50 on Cityscapes: 64 passes, every short side from 800 to 1024, smooth L1 for boxes.

    The original does not state its batch; 8 images fit its rate of 0.01.
    """
    config = _refinemask(cityscapes(model, refine))
    config.data.short_sides = tuple(range(800, 1025))
    config.host.box_head.loss_beta = 1.0
    config.train.steps = (21_000,)  # after 56 passes
    return config


def _refinemask(config: Config) -> Config:
    _only_for("refinemask", config)
    train, config.data.resize = config.train, "mmcv"
    train.norm_weight_decay, train.clip_grad_norm, train.warmup_iterations = train.weight_decay, 35.0, 500
    return config


def _pointrend(config: Config, body: CaffeBody) -> Config:
    _only_for("pointrend", config)
    from models.pointrend import detectron2

    config.host, config.data.resize = detectron2(body), "detectron2"
    return config


def _mask_rcnn(config: Config, host: MaskRCNNConfig) -> Config:
    _only_for("mask_rcnn", config)
    config.host = host
    return config


def _detectron2(config: Config, body: CaffeBody) -> Config:
    from models.mask_rcnn import detectron2

    config.data.resize = "detectron2"
    return _mask_rcnn(config, detectron2(body))


def _condinst(config: Config, body: CaffeBody) -> Config:
    _only_for("condinst", config)
    from models.backbone import caffe_body

    config.host.backbone, config.data.resize = caffe_body(body), "detectron2"
    return config


def _published(model: str, config: Config, images: int, iterations: int, steps: tuple[int, ...]) -> Config:
    _only_for(model, config)
    train, config.data.resize = config.train, "detectron2"
    # The rate follows from 0.01 at 16 images.
    train.images_per_batch, train.iterations, train.steps, train.seed = images, iterations, steps, 77
    return config


def _only_for(model: str, config: Config) -> None:
    if config.model != model:
        raise InputError(f"the {model}_* recipes are for --model {model}, not {config.model}; use coco_1x or coco_3x")


RECIPES: dict[str, Callable[[str, bool], Config]] = {
    recipe.__name__: recipe
    for recipe in (
        shapes,
        small,
        photos,
        coco_1x,
        coco_3x,
        cityscapes,
        anymask_photos,
        condinst_r50_1x,
        condinst_r50_3x,
        condinst_r101_3x,
        dance_r50_1x,
        dance_r50_3x,
        dance_r101_3x,
        deepsnake_r50_1x,
        mask_rcnn_r50_1x,
        mask_rcnn_r50_3x,
        mask_rcnn_r101_3x,
        mask_rcnn_x101_3x,
        mask_rcnn_torchvision,
        mask_rcnn_original_2x,
        pointrend_r50_1x,
        pointrend_r50_3x,
        pointrend_r101_3x,
        pointrend_x101_3x,
        pointrend_cityscapes,
        refinemask_r50_1x,
        refinemask_r50_2x,
        refinemask_cityscapes,
    )
}
