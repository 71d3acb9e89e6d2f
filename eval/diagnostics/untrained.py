"""Models with random weights at COCO's size, to be timed: they look at an image and find as much as trained ones do."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from data import DataConfig
from models.predictor import Predictor
from models.zoo import build_model, host_class
from sharpcontour.config import SharpContourConfig

CLASSES = 80
CANDIDATES = 1000  # of a detector before suppression: what trained ones have on a busy image


def drawn_file() -> bytes:
    """The bytes of an image file of 800 x 480 pixels that shows blurred colours."""
    coarse = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(coarse, (800, 480), interpolation=cv2.INTER_CUBIC))[1].tobytes()


def untrained(name: str, data: bytes, device: torch.device, instances: int) -> Predictor:
    """A model with SharpContour behind it and random weights, which finds so many instances.

    Args:
        name: in :data:`models.MODELS`, of a detector.
        data: bytes of the image file that it will look at.
        device: that it computes on.
        instances: detections of an image.
    """
    config: Any = host_class(name).config_type()
    config.backbone.weights, config.backbone.norm = "none", "bn"
    torch.manual_seed(0)
    model = build_model(config, CLASSES, SharpContourConfig()).to(device)
    _settle(model, device)
    usual = DataConfig()
    categories = [{"id": k + 1, "name": str(k + 1)} for k in range(CLASSES)]
    predictor = Predictor(model, categories, usual.test_short_side, usual.test_max_side)
    _choose_threshold(predictor, data, instances)
    return predictor


def describe(device: torch.device) -> str:
    """A device and the software, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _choose_threshold(predictor: Predictor, data: bytes, instances: int) -> None:
    """Let about as many candidates pass as a trained detector has: random weights would give none, or all."""
    host: Any = predictor.model.host
    fcos = hasattr(host, "detector")
    config = host.config.fcos if fcos else host.config.box_head
    config.max_detections = instances
    seen: list[Any] = []
    hook = (host.detector if fcos else host.box_head).register_forward_hook(lambda _, __, output: seen.append(output))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    predictor.predict(image)
    hook.remove()
    scores = seen[0].classes.sigmoid() if fcos else seen[0][0].softmax(1)[:, :-1]
    if fcos and config.threshold_product:
        scores = scores * seen[0].centerness.sigmoid()[..., None]
    config.score_threshold = float(scores.flatten().topk(max(CANDIDATES, 5 * instances)).values[-1])


@torch.no_grad()
def _settle(model: nn.Module, device: torch.device) -> None:
    """Give batch norms statistics, so that activations of random weights neither vanish nor overflow."""
    model.train()
    for _ in range(3):
        model.host.backbone(torch.randn(2, 3, 128, 128, device=device))  # type: ignore[operator, union-attr]
    model.eval()
