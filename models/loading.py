"""Checkpoints as files: the one reader of them, and a trained model from one."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from models.predictor import Predictor
from models.zoo import MODELS, build_model
from sharpcontour.config import SharpContourConfig
from sharpcontour.errors import InputError
from sharpcontour.io.device import choose_device
from sharpcontour.io.plain import from_dict
from sharpcontour.io.weights import not_finite

_NAME = re.compile(r"step_(\d+)\.pt")
_REQUIRED = ("model", "config", "categories", "step")
WEIGHTS = ("model",)
"""What a file must hold of which nothing but weights is taken: a checkpoint, or the package's refiner."""

# What parts of the refiner were called before its point classifier became a class of its own.
_RENAMED = (
    ("refiner.encode.", "refiner.classifier.encoder."),
    ("refiner.controller.", "refiner.classifier.controller."),
)


def load_model(path: str | Path, device: str | torch.device = "auto") -> Predictor:
    """A trained model in evaluation mode, from a checkpoint of ``scripts/train.py``.

    Args:
        path: of the checkpoint, or of a run's folder for its newest one that can be read.
        device: that it computes on; "auto" takes the first of cuda, mps and cpu that is there.

    Raises:
        InputError: where the file is missing, is no checkpoint, or does not fit the model it names, and where the
            device is not there.
    """
    return predictor_of(*find_checkpoint(Path(path)), device)


def predictor_of(path: Path, checkpoint: dict[str, Any], device: str | torch.device = "auto") -> Predictor:
    """The model of a checkpoint whose contents have been read, as :func:`load_model` gives it.

    Args:
        path: of the checkpoint, for error messages.
        checkpoint: its contents, from :func:`find_checkpoint`.
        device: that it computes on; "auto" takes the first of cuda, mps and cpu that is there.

    Raises:
        InputError: where the contents do not fit the model they name, and where the device is not there.
    """
    config, categories = checkpoint["config"], checkpoint["categories"]
    if config["model"] not in MODELS:
        raise InputError(f"{path}: unknown model {config['model']!r}; this version has {', '.join(MODELS)}")
    try:
        host_config = from_dict(MODELS[config["model"]].config_type, config["host"], "host.")
        refiner = from_dict(SharpContourConfig, config["sharpcontour"], "sharpcontour.") if config["refine"] else None
    except (InputError, KeyError) as error:
        raise InputError(f"{path}: its configuration does not fit this version ({error})") from error
    if hasattr(host_config, "backbone"):
        host_config.backbone.weights = "none"  # the checkpoint has them
    model = build_model(host_config, len(categories), refiner)
    load_weights(model, checkpoint, path)
    data = config["data"]
    resize = data.get("resize", "opencv")
    model.to(choose_device(device)).eval()
    return Predictor(model, categories, data["test_short_side"], data["test_max_side"], resize, config)


def find_checkpoint(path: Path, required: Sequence[str] = _REQUIRED) -> tuple[Path, dict[str, Any]]:
    """A checkpoint and its contents; of a run's folder, or its checkpoints/, the newest readable one.

    Args:
        path: of the file or the folder.
        required: what a single file must hold.

    Raises:
        InputError: where there is none, or none that can be read.
    """
    if not path.is_dir():
        return path, read_checkpoint(path, required)
    inside = path / "checkpoints"
    found = newest_readable(inside if inside.is_dir() else path)
    if found is None:
        raise InputError(f"{path}: holds no checkpoint (step_*.pt); give a run's folder or a checkpoint")
    return found


def newest_readable(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest readable checkpoint of a folder and its contents, or None if there is none at all.

    A damaged one is named in a warning and the one before it taken.

    Raises:
        InputError: if there are checkpoints but none can be read.
    """
    candidates = checkpoints(folder)
    for path in candidates:
        try:
            return path, read_checkpoint(path)
        except InputError as error:
            warnings.warn(f"{error}; trying the one before", stacklevel=2)
    if candidates:
        raise InputError(f"{folder}: none of its {len(candidates)} checkpoints can be read; remove them to start anew")
    return None


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a folder, newest first."""
    numbered = [(int(match.group(1)), path) for path in folder.glob("*.pt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(numbered, reverse=True)]


def read_checkpoint(path: Path, required: Sequence[str] = _REQUIRED) -> dict[str, Any]:
    """The contents of one checkpoint; code inside a file is never executed.

    Args:
        path: of the file.
        required: what it must hold.

    Raises:
        InputError: if it is missing, damaged, holds anything but tensors and plain values, or is not of this project.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    _check_sums(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it holds {foreign.group(1)}, not only tensors and plain values" if foreign else "it is no checkpoint"
        raise InputError(
            f"{path}: refused, {what}; load only files written by scripts/train.py (scripts/convert.py reads other "
            "projects' weights)"
        ) from error
    except Exception as error:  # reading garbage raises almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: damaged or cut off ({reason}); use an earlier one") from error
    missing = [key for key in required if not isinstance(state, dict) or key not in state]
    if missing:
        raise InputError(f"{path}: no checkpoint of this project (it lacks {', '.join(missing)})")
    if not isinstance(state["model"], dict) or not all(isinstance(name, str) for name in state["model"]):
        raise InputError(f"{path}: no checkpoint of this project (its 'model' holds no weights by name)")
    if name := not_finite(state["model"]):
        raise InputError(f"{path}: its weight {name} is not finite; use an earlier checkpoint")
    state["model"] = {_present_name(key): value for key, value in state["model"].items()}
    config = state.get("config")
    host = config.get("host") if isinstance(config, dict) else None
    if isinstance(host, dict) and host.get("mask_input") is False:  # earlier ones have weights that nothing used
        for name in [key for key in state["model"] if key.startswith("host.window.sides.")]:
            del state["model"][name]
    return cast(dict[str, Any], state)


def _check_sums(path: Path) -> None:
    """InputError where a file's contents do not match the checksums in it; torch does not look at these."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except Exception as error:  # a broken archive raises many things
        raise InputError(f"{path}: damaged or cut off ({type(error).__name__}); use an earlier one") from error
    if damaged is not None:
        raise InputError(f"{path}: damaged (the checksum of {damaged} is wrong); use an earlier one")


def _present_name(key: str) -> str:
    for old, new in _RENAMED:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def load_weights(model: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """Load all weights of a checkpoint into the model it was written from.

    Raises:
        InputError: naming the first weight that does not fit.
    """
    own, given = model.state_dict(), state["model"]
    for key in sorted({*own, *given}):
        if key not in given:
            raise InputError(f"{path}: lacks the weight {key} that this configuration needs")
        if key not in own:
            raise InputError(f"{path}: has a weight {key} that this configuration has no place for")
        if own[key].shape != given[key].shape:
            shapes = f"{tuple(given[key].shape)} there, {tuple(own[key].shape)} here"
            raise InputError(f"{path}: weight {key} has another shape ({shapes}); use the configuration of that run")
    model.load_state_dict(given)
