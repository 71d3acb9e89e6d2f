"""The evaluation of a run: metrics.json, one table, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from data import DatasetLike
from data.loader import build_loader
from engine.config import Config
from engine.distributed import World
from engine.logging import say
from eval.checks import ground_truth_of
from eval.degraded import MEASURES, evaluate_degraded, format_degraded
from eval.inference import evaluate_model
from eval.pictures.validation import draw_validation
from eval.results import format_table, left_out_line
from models.predictor import Predictor
from models.zoo import host_class, title_of
from sharpcontour.io.files import save_results


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
            ground_truth_of(dataset)

    def __call__(self, step: int) -> dict[str, float]:
        """Write metrics.json, print the table, draw pictures; returns the numbers for the log, by name."""
        world, config = self.world, self.config
        if not host_class(config.model).finds:
            return self._refine_given(step)
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
        if left_out := left_out_line(metrics):
            say(world, left_out)
        if world.main:
            title, folder = title_of(config.model), self.folder / "pictures"
            draw_validation(self.model, self.dataset, config.train.pictures, title, folder)
        return _flat(metrics)

    def _refine_given(self, step: int) -> dict[str, float]:
        """The evaluation of a model that is given masks: worse masks of the objects before and after refinement."""
        data = self.config.data
        predictor = Predictor(self.model, self.dataset.categories, data.test_short_side, data.test_max_side)
        say(self.world, f"refining worse masks of the objects on {len(self.dataset)} images")
        result = evaluate_degraded(predictor, self.dataset, progress=self.world.main)
        if self.world.main:
            save_results({"step": step, **result}, self.folder / "metrics.json")
        say(self.world, f"after step {step}, in percent before, after and the gain:", format_degraded(result))
        return {
            f"eval/{kind}/{name}": row[name]["after"] - row[name]["before"]
            for kind, row in result["masks"].items()
            for name in MEASURES
        }


def _flat(metrics: dict[str, Any]) -> dict[str, float]:
    """{"eval/refined/boundary/AP": ...}; numbers that are undefined are left out."""
    return {
        f"eval/{kind}/{metric}/{name}": value
        for kind in ("coarse", "refined")
        for metric, numbers in metrics.get(kind, {}).items()
        for name, value in numbers.items()
        if value is not None
    }
