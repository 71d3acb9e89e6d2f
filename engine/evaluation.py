"""The evaluation of a run: metrics.json, one table, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data import DatasetLike, build_loader
from engine.config import Config
from engine.distributed import World
from engine.logging import say
from eval import pictures
from eval.checks import GroundTruth
from eval.inference import evaluate_model
from eval.results import format_table, save_results
from models import TITLES
from sharpcontour.detections import Detections
from sharpcontour.refiner import RefinedModel

_SHOWN = 0.3  # score from which an instance is drawn
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
        """The images that refinement changed most, for better or worse; of the first, the evolution too."""
        count = self.config.train.pictures
        looked_at = range(0, len(self.dataset), max(len(self.dataset) // (_LOOKED_AT * max(count, 1)), 1))
        samples = [self.dataset[-1, index] for index in looked_at] if count else []
        found = [self._predict(sample["image"]) for sample in samples]
        if isinstance(self.model, RefinedModel):
            chosen = pictures.select_examples([f.coarse or f for f in found], found, count, threshold=_SHOWN)
        else:
            chosen = list(range(min(count, len(found))))
        names = [category["name"] for category in self.dataset.categories]
        titles = (TITLES[self.config.model], f"{TITLES[self.config.model]} + SharpContour")
        for place, index in enumerate(chosen):
            image = samples[index]["image"].permute(1, 2, 0).numpy()
            kept = pictures.confident(found[index], _SHOWN)
            name = self.folder / "pictures" / f"{place + 1}_{samples[index]['target']['image_id']}"
            if kept.coarse is None or kept.steps is None:
                pictures.save(name.with_suffix(".png"), pictures.draw_detections(image, kept, names))
                continue
            sheet = pictures.compare(image, kept.coarse, kept, names, titles=titles)
            pictures.save(name.with_suffix(".png"), sheet)
            if place == 0:
                moved = pictures.largest_moves(kept.coarse, kept, 1)
                steps = [objects[moved[0].instance if moved else 0] for objects in kept.steps]
                pictures.save(self.folder / "pictures" / "evolution.png", pictures.evolution(image, steps))

    def _predict(self, image: Tensor) -> Detections:
        images = [image.to(self.world.device)]
        if isinstance(self.model, RefinedModel):
            return self.model.detect(images, trace=True)[0]
        return self.model(images)[0]


def _flat(metrics: dict[str, Any]) -> dict[str, float]:
    """{"eval/refined/boundary/AP": ...}; numbers that are undefined are left out."""
    return {
        f"eval/{kind}/{metric}/{name}": value
        for kind in ("coarse", "refined")
        for metric, numbers in metrics.get(kind, {}).items()
        for name, value in numbers.items()
        if value is not None
    }
