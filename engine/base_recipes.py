"""The recipes that suit every model: built-in shapes, photographs, COCO, Cityscapes.

Functions that return a complete configuration; ``engine/recipes.py`` adds the published schedules and names them all.
"""

from __future__ import annotations

from data.config import DataConfig
from engine.config import Config, TrainConfig
from models.zoo import host_class
from sharpcontour.config import SharpContourConfig


def shapes(model: str, refine: bool) -> Config:
    """A small model on small drawn images: minutes on two CPU cores, for a look at everything."""
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
    return Config(model, host_class(model).small(), refine, SharpContourConfig(), data, train)


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


def photos(model: str, refine: bool) -> Config:
    """The model of :func:`shapes` on a few thousand photographs, the same budget for every model.

    Its body begins from weights that were trained on the same photographs: host.backbone.weights=CHECKPOINT, of any of
    these models (``scripts/reproduce.py --data photos`` makes them); without them it learns little in this time.
    """
    config = small(model, refine)
    if hasattr(config.host, "backbone"):
        config.host.backbone.freeze_at = 0
    config.train.iterations = 1500
    config.data.name = "photos"
    return config


def coco_1x(model: str, refine: bool) -> Config:
    """The usual 1x schedule for COCO: 16 images, 90k updates, 12 epochs; each host with its defaults."""
    host = host_class(model)
    train = TrainConfig(checkpoint_period=2500, eval_period=30_000, base_lr=host.base_lr)
    data = DataConfig(name="coco", workers=4, keep_empty=host.keep_empty)
    config = Config(model, host.config_type(), refine, SharpContourConfig(), data, train)
    return config


def coco_3x(model: str, refine: bool) -> Config:
    """The usual 3x schedule for COCO: three times as long as 1x, with the steps that Detectron2 has for it."""
    config = coco_1x(model, refine)
    config.train.iterations, config.train.steps = 270_000, (210_000, 250_000)
    return config


def cityscapes(model: str, refine: bool) -> Config:
    """The schedule for Cityscapes' fine images: 64 epochs, 24k updates of 8 images, several sizes, ImageNet weights."""
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
