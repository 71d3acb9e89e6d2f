"""Recipes: functions that return a complete configuration. ``--recipe`` names one, ``--set`` changes single values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data.config import DataConfig
from engine.config import Config, TrainConfig
from models import MODELS, mask_rcnn
from models.backbone import CaffeBody, caffe_body
from models.snake import SnakeConfig
from sharpcontour.config import SharpContourConfig
from sharpcontour.errors import InputError

TWO_STAGE = ("mask_rcnn", "pointrend", "refinemask")


def shapes(model: str, refine: bool) -> Config:
    """Small model, small drawn images: minutes on two CPU cores, for a look at everything."""
    host = _host(model)
    host.backbone.name, host.backbone.weights, host.backbone.norm = "resnet18", "none", "bn"
    host.backbone.width, host.backbone.fpn_channels = 32, 64
    if model in ("condinst", "dance", "deepsnake"):
        host.fcos.num_convs = 2
        host.fcos.max_positives = 128
        host.fcos.size_limits = (24.0, 48.0, 96.0, 192.0)  # px: the drawn objects spread over the levels
    if model == "condinst":
        host.branch_channels = 48
    if model in ("dance", "deepsnake"):
        host.channels, host.snake = 48, SnakeConfig(channels=32, pooled=64, hidden=32)
        host.vertices = 128
    if model in TWO_STAGE:
        host.rpn.sizes = (16.0, 32.0, 64.0, 128.0, 256.0)  # px: the drawn objects are smaller than COCO's
        host.rpn.batch, host.rpn.pre_nms_train, host.rpn.pre_nms_test = 128, 300, 300
        host.rpn.post_nms_train, host.rpn.post_nms_test = 100, 100
        host.box_head.channels, host.box_head.batch, host.box_head.foreground_share = 256, 48, 0.5
    if model == "mask_rcnn":
        host.mask_head.channels, host.mask_head.num_convs = 64, 2
    if model == "pointrend":
        host.coarse_head.channels, host.point_head.channels = 256, 64
    if model == "refinemask":
        host.refine_head.channels, host.refine_head.instance_convs, host.refine_head.semantic_convs = 64, 1, 2
    train = TrainConfig(
        images_per_batch=8,
        reference_batch=8,
        iterations=2000,
        optimizer="adamw",
        base_lr=1.5e-3,
        weight_decay=0.01,
        clip_grad_norm=10.0,
        schedule="cosine",
        steps=(),
        warmup_iterations=100,
        amp="bf16",
        checkpoint_period=200,
        eval_batch=8,
    )
    # Other images than the drawn ones are predicted at the same scale.
    data = DataConfig(name="shapes", test_short_side=192, test_max_side=384)
    return Config(model, host, refine, SharpContourConfig(), data, train)


def small(model: str, refine: bool) -> Config:
    """The model of :func:`shapes` on photographs of a few hundred pixels, for data of your own and no GPU.

    Begin from a run on shapes: train.init_from=runs/mask_rcnn_refine_shapes.
    """
    config = shapes(model, refine)
    config.train.iterations = 1000
    config.data = DataConfig(
        name="coco", short_sides=(192, 224, 256, 288), max_side=384, test_short_side=256, test_max_side=384
    )
    return config


def coco_1x(model: str, refine: bool) -> Config:
    """16 images, 90k updates: 12 epochs of COCO, as of FCOS and Mask R-CNN; each host with its defaults."""
    train = TrainConfig(checkpoint_period=2500, eval_period=30_000)
    config = Config(model, _host(model), refine, SharpContourConfig(), DataConfig(name="coco", workers=4), train)
    if model in TWO_STAGE:
        train.base_lr = 0.02
    if model in ("condinst", *TWO_STAGE):
        config.data.keep_empty = False
    return config


def coco_3x(model: str, refine: bool) -> Config:
    """Three times as long, with detectron2's steps for it."""
    config = coco_1x(model, refine)
    config.train.iterations, config.train.steps = 270_000, (210_000, 250_000)
    return config


def cityscapes(model: str, refine: bool) -> Config:
    """64 epochs of Cityscapes' fine images, several sizes: 24k updates of 8 images, from ImageNet's weights."""
    config = coco_1x(model, refine)
    train = config.train
    train.images_per_batch, train.iterations, train.steps = 8, 24_000, (18_000,)  # the rate follows from 16 images
    train.checkpoint_period, train.eval_period = 1000, 6000
    config.data = DataConfig(
        name="cityscapes",
        short_sides=tuple(range(800, 1025, 32)),
        max_side=2048,
        test_short_side=1024,
        test_max_side=2048,
        keep_empty=False,
        workers=4,
    )
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
    """Of DANCE's released ResNet-50 model: 8 images, 540k updates."""
    return _published("dance", coco_1x(model, refine), images=8, iterations=540_000, steps=(480_000, 520_000))


def dance_r101_3x(model: str, refine: bool) -> Config:
    """Of DANCE's released ResNet-101 model: 6 images at rate 0.00375, 720k updates."""
    config = _published("dance", coco_1x(model, refine), images=6, iterations=720_000, steps=(660_000, 700_000))
    config.host.backbone.name = "resnet101"
    return config


def deepsnake_r50_1x(model: str, refine: bool) -> Config:
    """DeepSnake on FCOS as in DANCE's comparison (Dsnake_R_50_1x): 8 images at rate 0.005, 180k updates."""
    config = _published("deepsnake", coco_1x(model, refine), images=8, iterations=180_000, steps=(120_000, 160_000))
    config.data.keep_empty = False
    return config


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
    config = _mask_rcnn(coco_1x(model, refine), mask_rcnn.torchvision())
    config.data.short_sides, config.data.resize = (800,), "torchvision"
    # 117,266 images with objects: 7,329 updates an epoch.
    config.train.iterations, config.train.steps = 190_554, (117_264, 161_238)
    return config


def mask_rcnn_original_2x(model: str, refine: bool) -> Config:
    """The authors' own e2e_mask_rcnn_R-50-FPN_2x: one size, biases at twice the rate and without decay."""
    config = _mask_rcnn(coco_1x(model, refine), mask_rcnn.original())
    config.data.short_sides = (800,)
    train = config.train
    train.iterations, train.steps = 180_000, (120_000, 160_000)
    train.warmup_iterations, train.warmup_factor = 500, 1 / 3
    train.bias_lr_factor, train.bias_weight_decay = 2.0, 0.0
    return config


def _mask_rcnn(config: Config, host: mask_rcnn.MaskRCNNConfig) -> Config:
    _only_for("mask_rcnn", config)
    config.host = host
    return config


def _detectron2(config: Config, body: CaffeBody) -> Config:
    config.data.resize = "detectron2"
    return _mask_rcnn(config, mask_rcnn.detectron2(body))


def _condinst(config: Config, body: CaffeBody) -> Config:
    _only_for("condinst", config)
    config.host.backbone, config.data.resize = caffe_body(body), "detectron2"
    return config


def _published(model: str, config: Config, images: int, iterations: int, steps: tuple[int, ...]) -> Config:
    _only_for(model, config)
    train = config.train
    # The rate follows from 0.01 at 16 images.
    train.images_per_batch, train.iterations, train.steps, train.seed = images, iterations, steps, 77
    return config


def _only_for(model: str, config: Config) -> None:
    if config.model != model:
        raise InputError(f"the {model}_* recipes are for --model {model}, not {config.model}; use coco_1x or coco_3x")


def _host(model: str) -> Any:
    return MODELS[model][1]()


RECIPES: dict[str, Callable[[str, bool], Config]] = {
    recipe.__name__: recipe
    for recipe in (
        shapes,
        small,
        coco_1x,
        coco_3x,
        cityscapes,
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
    )
}
