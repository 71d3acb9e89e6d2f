"""Where a training begins: at its own newest checkpoint, at another run's, at weights alone, or anew."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import DatasetLike
from engine import checkpoint
from engine.config import differences
from engine.logging import say
from engine.trainer import Trainer
from eval.processes import broadcast_object
from models.loading import WEIGHTS, find_checkpoint, newest_readable
from sharpcontour.errors import InputError


def begin(trainer: Trainer, resume: str, config: dict[str, Any], train_set: DatasetLike) -> None:
    """Put a trainer where its run goes on or begins; every process calls it.

    Args:
        trainer: new, its model with initial weights.
        resume: "auto": the newest checkpoint of the run, if any; "never": none; else the path of a checkpoint or run,
            which counts as long as the run has no checkpoint of its own.
        config: of the run, in plain form. Where nothing is resumed, its ``train.init_from`` says whose weights are
            taken.
        train_set: the training images.

    Raises:
        InputError: where a file cannot be used, does not fit the run, or a frozen host would have no trained weights.
    """
    world = trainer.world
    # Rank 0 reads, so that machines need not share a file system.
    found = broadcast_object(_find_start(resume, trainer.folder) if world.main else None)
    if found is not None:
        path, state = found
        if "optimizer" not in state:
            raise InputError(
                f"{path}: holds weights alone and no training to go on with; begin from them with "
                f"--set train.init_from={path}"
            )
        checkpoint.check_fits(state, config, train_set.categories, path, checkpoint.fingerprint(image_ids(train_set)))
        trainer.resume(state, path)
        say(world, f"resuming after step {trainer.step} from {path}")
        for change in differences(state["config"], config):
            say(world, f"warning: changed since that checkpoint: {change}")
    elif config["train"]["init_from"]:
        _take_weights(trainer, config)
    elif config["refine"] and not config["sharpcontour"]["train_host"]:
        raise InputError(
            "sharpcontour.train_host=false leaves the host as it is: name a trained one with --set train.init_from=RUN"
        )


def _take_weights(trainer: Trainer, config: dict[str, Any]) -> None:
    """Take those weights of ``train.init_from`` that the model has, and tell what keeps its initial values."""
    world = trainer.world
    found = find_checkpoint(Path(config["train"]["init_from"]), WEIGHTS) if world.main else None
    found = broadcast_object(found)
    assert found is not None  # rank 0 has it, or has raised
    path, state = found
    kept = checkpoint.load_matching(trainer.model, state)
    frozen = config["refine"] and not config["sharpcontour"]["train_host"]
    lacking = [name for name in kept if not name.endswith("num_batches_tracked")]
    if len(kept) == len(trainer.model.state_dict()) or (frozen and any(n.startswith("host.") for n in lacking)):
        raise InputError(
            f"{path}: has no weight {lacking[0]} of the shape that this model needs; take another checkpoint, or the "
            "--model and host settings of that one"
        )
    say(world, f"weights from {path}; {len(kept)} keep their initial values: {', '.join(kept) or '-'}")
    body = config["host"].get("backbone", {"weights": ""})
    if not frozen and body["weights"] == "none" and body["freeze_at"]:
        say(
            world,
            "with host.backbone.weights=none no stage of the body from there is frozen; to freeze as "
            f"host.backbone.freeze_at={body['freeze_at']} says, set host.backbone.weights={path} too",
        )


def _find_start(resume: str, folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from, if any; those of the run itself win over PATH, which is where it once began."""
    if resume == "never":
        return None
    own = newest_readable(folder / "checkpoints")
    if own is not None and resume != "auto" and os.path.realpath(own[0]) != os.path.realpath(resume):
        print(
            f"going on from {own[0]}, this run's newest, and not from --resume {resume}; to go back there, remove the "
            "later checkpoints or choose another --out",
            flush=True,
        )
    return own if own is not None or resume == "auto" else find_checkpoint(Path(resume))


def image_ids(dataset: DatasetLike) -> Sequence[int] | np.ndarray:
    """The ids of the training images in order; their places where a data set has none."""
    return getattr(dataset, "image_ids", range(len(dataset)))
