"""The evaluation of a run: metrics.json, one table, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from data import DatasetLike, build_loader
from engine.config import Config
from engine.distributed import World
from engine.logging import say
from eval import pictures
from eval.checks import GroundTruth
from eval.inference import evaluate_model
from eval.results import format_table, save_results

_SHOWN = 0.3  # score from which an instance is drawn


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
        """Some validation images, evenly spread and the same ones every time, to ``pictures/``."""
        count = min(self.config.train.pictures, len(self.dataset))
        names = [category["name"] for category in self.dataset.categories]
        host = self.config.model
        for place in range(count):
            sample = self.dataset[-1, place * len(self.dataset) // count]
            image = sample["image"].permute(1, 2, 0).numpy()
            found = pictures.confident(self.model([sample["image"].to(self.world.device)])[0], _SHOWN)
            if found.coarse is None:
                picture = pictures.draw_detections(image, found, names)
            else:
                picture = pictures.compare(image, found.coarse, found, names, titles=(host, f"{host} + SharpContour"))
            pictures.save(self.folder / "pictures" / f"{sample['target']['image_id']}.png", picture)


def _flat(metrics: dict[str, Any]) -> dict[str, float]:
    """{"eval/refined/boundary/AP": ...}; numbers that are undefined are left out."""
    return {
        f"eval/{kind}/{metric}/{name}": value
        for kind in ("coarse", "refined")
        for metric, numbers in metrics.get(kind, {}).items()
        for name, value in numbers.items()
        if value is not None
    }
