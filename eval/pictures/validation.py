"""Pictures of a run: the validation images that refinement improved most, any others, and one contour's evolution."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data import DatasetLike
from data.transforms import Sample
from eval.pictures import course, examples
from sharpcontour.anymask.foreign_masks import read_masks
from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.io.images import ImageError
from sharpcontour.pictures import comparison, drawing, moves
from sharpcontour.refined_model import RefinedModel

SHOWN = 0.45  # score from which an instance is drawn
LOOKED_AT = 6  # images among which each one drawn is chosen


@torch.no_grad()
def draw_validation(model: nn.Module, dataset: DatasetLike, count: int, title: str, folder: Path) -> None:
    """Write ``count`` pictures: "improved_*.png" of a refined model, "any_*.png", and "evolution.png".

    Args:
        model: in evaluation mode.
        dataset: of the validation images.
        count: pictures; half of them show what improved most. 0: none.
        title: of the host.
        folder: for the files.
    """
    for old in (*folder.glob("improved_*.png"), *folder.glob("any_*.png"), folder / "evolution.png"):
        old.unlink(missing_ok=True)
    half = max(count // 2, 1) if count else 0
    looked_at = range(0, len(dataset), max(len(dataset) // (LOOKED_AT * max(half, 1)), 1))
    samples = []
    for index in looked_at if half else ():
        with contextlib.suppress(ImageError):  # the evaluation has told them
            samples.append(dataset[-1, index])
    found = [_predict(model, sample["image"]) for sample in samples]
    best: list[int] = []
    if isinstance(model, RefinedModel):
        coarse = [f.coarse or f for f in found]
        best = examples.select_examples(coarse, found, half, _outlines(dataset, samples), SHOWN)
    spread = list(range(0, len(found), LOOKED_AT))[:half]
    names = [category["name"] for category in dataset.categories]
    for name, chosen in (("improved", best), ("any", spread)):
        for place, index in enumerate(chosen, 1):
            kept = examples.confident(found[index], SHOWN)
            pixels = samples[index]["image"].round().byte().permute(1, 2, 0).numpy()
            _draw(pixels, kept, names, title, folder / f"{name}_{place}.png")
            if (name, place) == ("improved", 1):
                _draw_evolution(pixels, kept, folder / "evolution.png")


def _draw(pixels: np.ndarray, found: Detections, names: list[str], title: str, path: Path) -> None:
    if found.coarse is None or found.steps is None:
        drawing.save(path, comparison.draw_detections(pixels, found, names))
    else:
        titles = title, f"{title} + SharpContour"
        drawing.save(path, comparison.compare(pixels, found.coarse, found, names, titles=titles))


def _draw_evolution(pixels: np.ndarray, found: Detections, path: Path) -> None:
    """The contour that moved most, iteration by iteration; nothing where none moved."""
    assert found.coarse is not None and found.steps is not None
    moved = moves.largest_moves(found.coarse, found, 1)
    if moved:
        drawing.save(path, course.evolution(pixels, [objects[moved[0].instance] for objects in found.steps]))


def _predict(model: nn.Module, image: Tensor) -> Detections:
    images = [image.to(next(model.parameters()).device)]
    found: list[Detections] = model.detect(images, trace=True) if isinstance(model, RefinedModel) else model(images)
    return found[0]


def _outlines(dataset: DatasetLike, samples: list[Sample]) -> list[list[Rings]]:
    """The ground-truth outlines of every sample, in the pixels of its image; crowds left out."""
    of_image: dict[int, list[object]] = {sample["target"]["image_id"]: [] for sample in samples}
    for annotation in dataset.ground_truth()["annotations"]:
        if annotation["image_id"] in of_image and not annotation.get("iscrowd"):
            of_image[annotation["image_id"]].append(annotation["segmentation"])
    outlines = []
    for sample in samples:
        target = sample["target"]
        height, width = target["original_size"]
        scale = np.array([target["size"][1] / width, target["size"][0] / height])
        objects = read_masks(of_image[target["image_id"]], height, width).objects
        outlines.append([[(ring * scale).astype(np.float32) for ring in rings] for rings in objects])
    return outlines
