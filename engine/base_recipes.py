"""The recipes that suit every model: built-in shapes, small photographs, COCO, Cityscapes.

Functions that return a complete configuration; ``engine/recipes.py`` adds the published schedules and names them all.
"""

from __future__ import annotations

from typing import Any

from data.config import DataConfig
from engine.config import Config, TrainConfig
from models import MODELS
from models.snake.network import SnakeConfig
from sharpcontour.config import SharpContourConfig

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


def _host(model: str) -> Any:
    return MODELS[model][1]()
