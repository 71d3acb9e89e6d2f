"""Recipes: functions that return a complete configuration. ``--recipe`` names one, ``--set`` changes single values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data.config import DataConfig
from engine.config import Config, TrainConfig
from models import MODELS
from sharpcontour.config import SharpContourConfig
from sharpcontour.errors import InputError


def shapes(model: str, refine: bool) -> Config:
    """Small model, small drawn images: minutes on two CPU cores, for a look at everything."""
    host = _host(model)
    host.backbone.name, host.backbone.weights, host.backbone.norm = "resnet18", "none", "bn"
    host.backbone.width, host.backbone.fpn_channels = 32, 64
    if model == "dance":
        host.channels, host.snake_channels, host.snake_global, host.snake_hidden = 48, 32, 64, 32
        host.vertices = 128
        host.fcos.num_convs = 2
        host.fcos.max_positives = 128
        host.fcos.size_limits = (24.0, 48.0, 96.0, 192.0)  # px: the drawn objects spread over the levels
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


def coco_1x(model: str, refine: bool) -> Config:
    """16 images, 90k updates: 12 epochs of COCO, as of FCOS and CondInst; each host with its defaults."""
    train = TrainConfig(checkpoint_period=2500, eval_period=30_000)
    return Config(model, _host(model), refine, SharpContourConfig(), DataConfig(name="coco", workers=4), train)


def coco_3x(model: str, refine: bool) -> Config:
    """Three times as long, with detectron2's steps for it."""
    config = coco_1x(model, refine)
    config.train.iterations, config.train.steps = 270_000, (210_000, 250_000)
    return config


def dance_r50_1x(model: str, refine: bool) -> Config:
    """DANCE's base configuration: 8 images at rate 0.005, 180k updates.

    The published runs started from Caffe's ResNet: host.backbone.weights=FILE, channel_order=bgr, pixel_std=1,1,1,
    pixel_mean=103.53,116.28,123.675, stride_in_1x1=true. Here torchvision's takes its place.
    """
    return _published(model, refine, images=8, iterations=180_000, steps=(120_000, 160_000))


def dance_r50_3x(model: str, refine: bool) -> Config:
    """Of DANCE's released ResNet-50 model: 8 images, 540k updates."""
    return _published(model, refine, images=8, iterations=540_000, steps=(480_000, 520_000))


def dance_r101_3x(model: str, refine: bool) -> Config:
    """Of DANCE's released ResNet-101 model: 6 images at rate 0.00375, 720k updates."""
    config = _published(model, refine, images=6, iterations=720_000, steps=(660_000, 700_000))
    config.host.backbone.name = "resnet101"
    return config


def _published(model: str, refine: bool, images: int, iterations: int, steps: tuple[int, ...]) -> Config:
    if model != "dance":
        raise InputError(f"the dance_* recipes are for --model dance, not {model}; use coco_1x or coco_3x")
    config = coco_1x(model, refine)
    train = config.train
    # The rate follows from 0.01 at 16 images.
    train.images_per_batch, train.iterations, train.steps, train.seed = images, iterations, steps, 77
    return config


def _host(model: str) -> Any:
    return MODELS[model][1]()


RECIPES: dict[str, Callable[[str, bool], Config]] = {
    recipe.__name__: recipe for recipe in (shapes, coco_1x, coco_3x, dance_r50_1x, dance_r50_3x, dance_r101_3x)
}
