"""The evaluation of a run: metrics.json, one table, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from data import DatasetLike, build_loader
from engine.config import Config
from engine.distributed import World
from engine.logging import say
from eval import pictures
from eval.checks import GroundTruth
from eval.inference import evaluate_model
from eval.results import format_table
from models.zoo import title_of
from sharpcontour.contours.tracing import trace_mask
from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.io.files import save_results
from sharpcontour.refined_model import RefinedModel

_SHOWN = 0.45  # score from which an instance is drawn
_LOOKED_AT = 6  # images among which each one drawn is chosen


class Evaluation:
    """Scores a model on the validation images when called.

    Args:
        model: on ``world.device``.
        dataset: of the validation images.
        config: of the run.
        world: this process's place; all take part.
        folder: of the run.

    Raises:
        InputError: where the ground truth is broken; before training, not after.
    """

    def __init__(self, model: nn.Module, dataset: DatasetLike, config: Config, world: World, folder: Path) -> None:
        self.model, self.dataset, self.config, self.world, self.folder = model, dataset, config, world, folder
        if world.main:
            GroundTruth(dataset.ground_truth())

    def __call__(self, step: int) -> dict[str, float]:
        """Write metrics.json, print the table, draw pictures; returns the numbers for the log, by name."""
        world, config = self.world, self.config
        loader = build_loader(
            self.dataset,
            config.train.eval_batch,
            training=False,
            rank=world.rank,
            world_size=world.size,
            workers=config.data.workers,
        )
        say(world, f"evaluating {len(self.dataset)} images")
        metrics = evaluate_model(self.model, self.dataset, loader, world.device, progress=world.main)
        if world.main:
            save_results({"step": step, **metrics}, self.folder / "metrics.json")
        seconds = metrics["seconds"]
        say(
            world,
            f"{metrics['images']} validation images in {seconds['total']:.1f} s (model {seconds['forward']:.1f} s, "
            f"scoring {seconds['match']:.1f} s), after step {step}:",
            format_table(metrics),
        )
        if world.main:
            self._draw()
        return _flat(metrics)

    @torch.no_grad()
    def _draw(self) -> None:
        """Pictures of the images that refinement improved most, of one contour's evolution, and of any images."""
        half = max(self.config.train.pictures // 2, 1) if self.config.train.pictures else 0
        looked_at = range(0, len(self.dataset), max(len(self.dataset) // (_LOOKED_AT * max(half, 1)), 1))
        samples = [self.dataset[-1, index] for index in looked_at] if half else []
        found = [self._predict(sample["image"]) for sample in samples]
        best: list[int] = []
        if isinstance(self.model, RefinedModel):
            coarse = [f.coarse or f for f in found]
            best = pictures.select_examples(coarse, found, half, self._outlines(samples), _SHOWN)
        spread = list(range(0, len(found), _LOOKED_AT))[:half]
        for name, chosen in (("improved", best), ("any", spread)):
            for place, index in enumerate(chosen, 1):
                kept = pictures.confident(found[index], _SHOWN)
                self._draw_one(
                    f"{name}_{place}", samples[index]["image"], kept, course=(name, place) == ("improved", 1)
                )

    def _draw_one(self, name: str, image: Tensor, found: Detections, course: bool) -> None:
        folder, pixels = self.folder / "pictures", image.round().byte().permute(1, 2, 0).numpy()
        names = [category["name"] for category in self.dataset.categories]
        title = title_of(self.config.model)
        if found.coarse is None or found.steps is None:
            pictures.save(folder / f"{name}.png", pictures.draw_detections(pixels, found, names))
            return
        sheet = pictures.compare(pixels, found.coarse, found, names, titles=(title, f"{title} + SharpContour"))
        pictures.save(folder / f"{name}.png", sheet)
        moved = pictures.largest_moves(found.coarse, found, 1)
        if course and moved:
            steps = [objects[moved[0].instance] for objects in found.steps]
            pictures.save(folder / "evolution.png", pictures.evolution(pixels, steps))

    def _outlines(self, samples: list[dict[str, Any]]) -> list[list[Rings]]:
        """The ground-truth outlines of every sample, in the pixels of its image; crowds left out."""
        truth = self.dataset.ground_truth()
        of_image: dict[int, list[dict[str, Any]]] = {sample["target"]["image_id"]: [] for sample in samples}
        for annotation in truth["annotations"]:
            if annotation["image_id"] in of_image and not annotation.get("iscrowd"):
                of_image[annotation["image_id"]].append(annotation)
        outlines = []
        for sample in samples:
            target = sample["target"]
            height, width = target["original_size"]
            scale = np.array([target["size"][1] / width, target["size"][0] / height], np.float32)
            objects = [_rings(a["segmentation"], height, width) for a in of_image[target["image_id"]]]
            outlines.append([[ring * scale for ring in rings] for rings in objects])
        return outlines

    def _predict(self, image: Tensor) -> Detections:
        images = [image.to(self.world.device)]
        if isinstance(self.model, RefinedModel):
            return self.model.detect(images, trace=True)[0]
        return self.model(images)[0]


def _rings(segmentation: Any, height: int, width: int) -> Rings:
    """The rings of a COCO segmentation: polygons as they are, run lengths traced."""
    if isinstance(segmentation, list):
        return [np.array(polygon, np.float32).reshape(-1, 2) for polygon in segmentation]
    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, height, width)
    return trace_mask(coco_mask.decode(segmentation).astype(bool))


def _flat(metrics: dict[str, Any]) -> dict[str, float]:
    """{"eval/refined/boundary/AP": ...}; numbers that are undefined are left out."""
    return {
        f"eval/{kind}/{metric}/{name}": value
        for kind in ("coarse", "refined")
        for metric, numbers in metrics.get(kind, {}).items()
        for name, value in numbers.items()
        if value is not None
    }
