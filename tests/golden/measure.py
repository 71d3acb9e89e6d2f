"""Golden numbers: what every model computes on drawn images with fixed seeds. A refactoring leaves them as they are.

    python -m tests.golden.measure    # from the repository's root: writes tests/golden/numbers.json anew

Numbers of float32 depend on the processor and on torch in their last bits, so the file says what it was made with.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from data import DataConfig, build_dataset
from engine.config import Config, flat
from engine.recipes import RECIPES
from models import MODELS, Predictor, build_model
from models.bpr import BPR, BPRConfig
from sharpcontour.config import SharpContourConfig
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.loss import total_loss
from tests.models.helpers import TINY, confident, rle_of

PATH = Path(__file__).with_name("numbers.json")
OUTPUTS = ("phi", "vector", "distance")  # of the classifier; the regressions of Table 9 behind one host only
SIZE = 96  # px, side of the drawn images
KEPT = 5  # detections of an image


def measure() -> dict[str, Any]:
    """All golden numbers, by name."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        numbers = {name: _model(name, refine=False) for name in sorted(TINY)}
        for name in sorted(TINY):
            numbers[f"{name} + SharpContour"] = _model(name, refine=True)
        for output in OUTPUTS[1:]:
            numbers[f"mask_rcnn + {output}"] = _model("mask_rcnn", refine=True, output=output)
        numbers["bpr"] = _bpr()
        return {"environment": environment(), "recipes": _recipes(), "models": numbers}
    finally:
        torch.set_num_threads(threads)


def environment() -> dict[str, str]:
    """What the last bits depend on."""
    return {
        "torch": str(torch.__version__),
        "opencv": cv2.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def _config() -> DataConfig:
    return DataConfig(name="shapes", shapes_size=SIZE)


def _model(name: str, refine: bool, output: Any = "phi") -> dict[str, Any]:
    """Losses, their gradients and detections of a host with random weights, and what it makes of given masks."""
    torch.manual_seed(3)
    sharpcontour = SharpContourConfig()
    sharpcontour.classifier.output = output
    config = confident(name)
    (config.fcos if hasattr(config, "fcos") else config.box_head).max_detections = KEPT
    model: Any = build_model(config, 10, sharpcontour if refine else None)
    samples = [build_dataset(_config(), "train", model.target_builder)[0, index] for index in (0, 1)]
    images, targets = [sample["image"] for sample in samples], [sample["target"] for sample in samples]
    torch.manual_seed(5)
    losses = model(images, targets)
    total_loss(losses).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    numbers: dict[str, Any] = {"losses": {key: float(value.detach()) for key, value in losses.items()}}
    numbers["gradient"] = float(gradient)
    _disturb(model, name)
    validation = build_dataset(_config(), "val")
    with torch.no_grad():
        found = model.eval()([validation[-1, index]["image"] for index in (0, 1)])
    numbers["detections"] = [_summary(one) for one in found]
    if refine:
        numbers["given"] = _refine_given(model, validation)
    return numbers


def _disturb(model: Any, name: str) -> None:
    """Weights that say more than random ones: the first boxes, masks and verdicts are all alike and do not move."""
    generator = torch.Generator().manual_seed(7)
    host = getattr(model, "host", model)
    modules: list[nn.Module] = [host.controller] if name == "condinst" else []
    if host is not model:
        modules.append(model.refiner)
    with torch.no_grad():
        if hasattr(host, "detector"):
            host.detector.head.bbox_pred.bias.fill_(3.0)  # strides
        for parameter in (parameter for module in modules for parameter in module.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def _refine_given(model: nn.Module, validation: Any) -> dict[str, Any]:
    """Masks from elsewhere in all their forms, on an image that must be resized."""
    image = validation[-1, 2]["image"].permute(1, 2, 0).numpy()
    objects = [shape.rings for shape in validation.scene(2)[1]][:4]
    masks = np.zeros((2, SIZE, SIZE), bool)
    masks[0, 20:90, 30:70], masks[0, 40:60, 45:55], masks[1, 50:90, 5:80] = True, False, True
    given = [masks[0], rle_of(masks[1]), [np.array([[10, 10], [90, 20], [50, 95]], float).ravel().tolist()], *objects]
    predictor = Predictor(model, [{"id": 1, "name": "object"}], 160, 320)
    return _summary(predictor.refine(np.ascontiguousarray(image), given))


def _summary(found: Detections) -> dict[str, Any]:
    numbers: dict[str, Any] = {"count": len(found), "boxes": found.boxes.tolist(), "scores": found.scores.tolist()}
    numbers["labels"] = found.labels.tolist()
    numbers["outlines"] = [_outline(rings) for rings in found.rings]
    numbers["areas"] = found.masks().sum((1, 2)).tolist()
    if found.coarse is not None:
        numbers["coarse areas"] = found.coarse.masks().sum((1, 2)).tolist()
    return numbers


def _outline(rings: list[np.ndarray]) -> list[float]:
    """Vertices of an object: how many, their mean, and how far they spread."""
    points = np.concatenate([np.zeros((0, 2)), *rings])
    return [float(len(points)), *points.mean(0).tolist(), *points.std(0).tolist()] if len(points) else []


def _bpr() -> dict[str, Any]:
    torch.manual_seed(3)
    model = BPR(BPRConfig())
    validation = build_dataset(_config(), "val")
    image = validation[-1, 0]["image"]
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(4, 64, 64, generator=generator) > 0.5
    patches = torch.stack([image[:, y : y + 64, x : x + 64] for y in (0, 32) for x in (0, 32)])
    loss = model.loss(patches, masks, ~masks)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[20:90, 30:70] = True
    refined = model.eval().refine(image, [rle_of(mask, text=True)])[0]
    counts = refined["counts"]
    data = counts.encode() if isinstance(counts, str) else counts
    return {"losses": {"loss": float(loss.detach())}, "counts": hashlib.sha256(data).hexdigest()[:16]}


def _recipes() -> dict[str, str]:
    """A hash of what every configuration changes of the defaults, by recipe, model and whether it is refined."""
    hashes = {}
    for recipe in RECIPES:
        for model in MODELS:
            for refine in (False, True):
                try:
                    config = RECIPES[recipe](model, refine)
                except InputError:
                    continue  # a published schedule of another model
                usual = flat(Config(model, type(config.host)(), refine))
                changed = {key: value for key, value in flat(config).items() if value != usual[key]}
                text = json.dumps(changed, sort_keys=True)
                hashes[f"{recipe} {model}{' refine' if refine else ''}"] = hashlib.sha256(text.encode()).hexdigest()[
                    :12
                ]
    return hashes


if __name__ == "__main__":
    PATH.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    print(f"{PATH}: written")
