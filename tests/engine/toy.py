"""A model and a data set small enough to train in milliseconds, with everything that makes resuming hard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from engine.config import TrainConfig
from engine.distributed import World
from engine.trainer import Batch, Batches, Trainer, images_per_pass

CATEGORIES = [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}]
EXTRA = {"config": {"model": "toy", "refine": False}, "categories": CATEGORIES}


class ToyModel(nn.Module):
    """Regresses a number of each box; random (dropout) and with norm statistics."""

    def __init__(self, dropout: float = 0.3, batch_norm: bool = False) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(4) if batch_norm else nn.GroupNorm(2, 4)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Dropout(dropout), nn.Flatten())
        self.head = nn.Linear(4 * 6 * 6, 4)

    def forward(self, images: list[Tensor], targets: list[dict[str, Any]]) -> dict[str, Tensor]:
        found = self.head(self.body(torch.stack(images).float() / 255))
        count = sum(len(target["boxes"]) for target in targets)
        if count == 0:
            return {"loss_box": 0.0 * found.sum()}
        pairs = zip(found, targets, strict=True)
        error = torch.stack([(one - target["boxes"]).square().sum() for one, target in pairs]).sum()
        return {"loss_box": error / count, "boxes": torch.tensor(float(count))}


@dataclass
class ToyData:
    """Twelve images; augmentation depends on (epoch, index) alone."""

    length: int = 12
    poisoned: tuple[int, ...] = ()  # images whose boxes are NaN
    empty: tuple[int, ...] = ()  # images without objects

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict[str, Any]]:
        epoch, index = key
        rng = np.random.default_rng((epoch, index))
        image = torch.from_numpy(rng.integers(0, 256, (3, 8, 8), dtype=np.uint8))
        boxes = torch.from_numpy(rng.random((0 if index in self.empty else 1 + index % 2, 4), dtype=np.float32))
        if index in self.poisoned:
            boxes[:] = np.nan
        return image, {"image_id": index, "boxes": boxes}


def collate(samples: list[tuple[Tensor, dict[str, Any]]]) -> Batch:
    return [image for image, _ in samples], [target for _, target in samples]


def batches(
    data: ToyData, per_pass: int, rank: int = 0, size: int = 1, workers: int = 0, shuffle: bool = True
) -> Callable[[int], Batches]:
    """Endless batches after the n-th; an image's place in the order does not depend on the number of processes."""

    def begin(n: int) -> Batches:
        per_epoch = len(data) // (per_pass * size)
        epoch, step = divmod(n, per_epoch)
        while True:
            order = np.random.default_rng(epoch).permutation(len(data)) if shuffle else np.arange(len(data))
            starts = [(at * size + rank) * per_pass for at in range(step, per_epoch)]
            keys = [[(epoch, int(i)) for i in order[s : s + per_pass]] for s in starts]
            yield from DataLoader(data, batch_sampler=keys, num_workers=workers, collate_fn=collate)  # type: ignore[arg-type]
            epoch, step = epoch + 1, 0

    return begin


def config(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "images_per_batch": 4,
        "reference_batch": 4,
        "iterations": 10,
        "base_lr": 0.05,
        "warmup_iterations": 3,
        "steps": (7,),
        "log_period": 2,
        "checkpoint_period": 1000,
    }
    return TrainConfig(**{**values, **changes})


def trainer(
    folder: Path,
    settings: TrainConfig,
    world: World | None = None,
    data: ToyData | None = None,
    workers: int = 0,
    evaluate: Callable[[int], dict[str, float]] | None = None,
    model: ToyModel | None = None,
    feed: Callable[[int], Batches] | None = None,
) -> Trainer:
    world = world or World()
    if model is None:
        torch.manual_seed(0)
        model = ToyModel()
    per_pass = images_per_pass(settings, world)
    feed = feed or batches(data or ToyData(), per_pass, world.rank, world.size, workers)
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(model, settings, world, folder, feed, evaluate or (lambda step: {}), dict(EXTRA))
