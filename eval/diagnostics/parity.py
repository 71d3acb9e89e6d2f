"""A model on two devices: the same weights, images and random numbers must give the same losses and detections."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from data import DataConfig, build_dataset
from models import build_model
from models.predictor import Predictor
from models.zoo import host_class
from sharpcontour.config import SharpContourConfig
from sharpcontour.detections import Detections
from sharpcontour.io.device import to_device
from sharpcontour.loss import total_loss

SIZE = 128  # px, side of the drawn images
CLASSES = 10  # of the drawn shapes
KEPT = 20  # detections of an image
DRAWS = ("rand", "randn", "randint", "randperm", "rand_like")  # what models draw on the device


@contextlib.contextmanager
def drawn_on_the_cpu() -> Iterator[None]:
    """Let every device get the random numbers that the CPU draws; generators of two devices never agree."""
    usual = {name: getattr(torch, name) for name in DRAWS}

    def on_cpu(name: str) -> Any:
        def draw(*args: Any, device: Any = None, **more: Any) -> torch.Tensor:
            if name == "rand_like":
                args, device = args[0].shape, args[0].device
            drawn: torch.Tensor = usual[name.removesuffix("_like")](*args, **more)
            return drawn if device is None else drawn.to(device)

        return draw

    try:
        for name in DRAWS:
            setattr(torch, name, on_cpu(name))
        yield
    finally:
        for name, draw in usual.items():
            setattr(torch, name, draw)


def compare_devices(name: str, refine: bool, device: torch.device) -> dict[str, float]:
    """Compare a small model with random weights on the CPU and on another device, in float32.

    Args:
        name: in :data:`models.MODELS`.
        refine: whether SharpContour stands behind it.
        device: the other one.

    Returns:
        The largest "loss" difference as a share of the loss; "gradient", the length of the gradients' difference as a
        share of theirs; of detections, or with a host that is given masks of these refined: "count", the difference in
        number, and from the nearest of the other ones "score" and "box" (pixels), the largest differences, and "iou",
        1 - the lowest IoU of two masks.
    """
    torch.manual_seed(3)
    ours: Any = build_model(small(name), CLASSES, SharpContourConfig() if refine else None)
    theirs: Any = copy.deepcopy(ours).to(device)
    here, there = _learn(ours), _learn(theirs)
    losses = [
        abs(here[0][key] - value) / (abs(value) + 1e-3) for key, value in there[0].items() if key.startswith("loss")
    ]
    gradient = (here[1] - there[1]).norm() / here[1].norm().clamp(min=1e-12)
    found = {"loss": float(np.max(losses)), "gradient": float(gradient)}  # a NaN is the largest
    validation = build_dataset(DataConfig(name="shapes", shapes_size=SIZE), "val")
    pairs = [(_look(ours, validation, index), _look(theirs, validation, index)) for index in (0, 1)]
    parts = [_differences(a, b) for a, b in pairs]
    return found | {key: float(np.max([part[key] for part in parts])) for key in parts[0]}


def small(name: str) -> Any:
    """The configuration of a host for drawn shapes, which lets the detections of random weights pass."""
    config = host_class(name).small()
    head = getattr(config, "fcos", None) or getattr(config, "box_head", None)
    if head is not None:
        head.score_threshold, head.max_detections = 0.0, KEPT
    return config


def drawn_batch(model: Any, size: int) -> tuple[list[torch.Tensor], list[Any]]:
    """Two drawn training images of ``size`` pixels, always the same, and their targets, on a model's device.

    Targets have what the model adds to them, if it is one of this project's.
    """
    config = DataConfig(name="shapes", shapes_size=size)
    dataset: Any = build_dataset(config, "train", getattr(model, "target_builder", None))
    samples = [dataset[0, index] for index in (0, 1)]
    device = next(model.parameters()).device
    images, targets = ([sample[key] for sample in samples] for key in ("image", "target"))
    return to_device(images, device), to_device(targets, device)


def _learn(model: Any) -> tuple[dict[str, float], torch.Tensor]:
    """Losses by name, and all gradients as one vector on the CPU."""
    images, targets = drawn_batch(model, SIZE)
    torch.manual_seed(5)
    with drawn_on_the_cpu():
        losses = model.train()(images, targets)
    total_loss(losses).backward()
    gradients = [
        parameter.grad.flatten().float().cpu() for parameter in model.parameters() if parameter.grad is not None
    ]
    return {key: float(value.detach()) for key, value in losses.items()}, torch.cat(gradients)


@torch.no_grad()
def _look(model: nn.Module, dataset: Any, index: int) -> Detections:
    """Detections on a drawn image, or its objects' masks refined."""
    model.eval()
    image = dataset[-1, index]["image"]
    if getattr(getattr(model, "host", model), "finds", True):
        (found,) = model([image.to(next(model.parameters()).device)])
        return found
    masks = np.stack(list(_masks(dataset, index)))
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return Predictor(model, [{"id": 1, "name": "object"}], SIZE, SIZE).refine(pixels, masks)


def _masks(dataset: Any, index: int) -> Iterator[np.ndarray]:
    """The masks of a drawn image's objects, a little shifted."""
    sample = dataset[0, index]["target"]
    for mask in sample["masks"].dense(*sample["size"]).numpy():
        yield np.roll(mask, 3, 1)


def _differences(a: Detections, b: Detections) -> dict[str, float]:
    """Differences of the detections of ``a`` from the nearest ones of ``b``: of equal scores any may come first."""
    worst = {"count": float(abs(len(a) - len(b))), "score": 0.0, "box": 0.0, "iou": 0.0}
    if len(a) == 0 or len(b) == 0:
        return worst if len(a) == len(b) else {**worst, "iou": 1.0}
    apart = (a.boxes.cpu()[:, None] - b.boxes.cpu()).abs().amax(2) + 1e4 * (a.labels.cpu()[:, None] != b.labels.cpu())
    distance, nearest = apart.min(1)
    worst["box"] = float(distance.max())
    worst["score"] = float((a.scores.cpu() - b.scores.cpu()[nearest]).abs().max())
    ours, theirs = a.masks(), b.masks()[nearest.numpy()]
    union = (ours | theirs).sum((1, 2))
    same = np.where(union > 0, (ours & theirs).sum((1, 2)) / np.maximum(union, 1), 1.0)
    worst["iou"] = float(1 - same.min())
    return worst
