"""Checkpoints: files of tensors and plain values that a kill, a full disk or a foreign file cannot spoil.

A file is written under another name, flushed to the disk, and renamed; ``LATEST`` names the newest one and is written
the same way. So whatever happens, the newest file that bears its final name is whole.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from sharpcontour.errors import InputError

LATEST = "LATEST"
_NAME = re.compile(r"step_(\d+)\.pt")
_REQUIRED = ("model", "config", "categories", "step")


def save(folder: Path, state: dict[str, Any], step: int, keep: int) -> Path:
    """Write ``step_<step>.pt`` and then drop all but the newest ``keep`` checkpoints.

    Args:
        folder: is made if missing.
        state: tensors, dicts, lists, strings, numbers, booleans and None only.
        step: updates done.
        keep: at least 1.

    Raises:
        InputError: where the disk is full or not writable; earlier checkpoints stay.
    """
    path = folder / f"step_{step:08d}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_atomically(path, lambda file: torch.save(state, file))
        _write_atomically(folder / LATEST, lambda file: file.write(path.name.encode()))
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise InputError(f"{path}: cannot write the checkpoint ({error}); earlier ones are untouched") from error
    for old in checkpoints(folder)[max(keep, 1) :]:
        old.unlink(missing_ok=True)
    return path


def save_file(state: dict[str, Any], path: str | Path) -> None:
    """Write one file of tensors and plain values, whole or not at all.

    Raises:
        InputError: where it cannot be written.
    """
    try:
        _write_atomically(Path(path), lambda file: torch.save(state, file))
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be written ({error}); choose another place") from error


def _write_atomically(path: Path, write: Any) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        write(cast(BinaryIO, file))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if os.name == "posix":  # makes the rename itself durable; Windows cannot open folders
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a folder, newest first."""
    found = [path for path in folder.glob("step_*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(_NAME.fullmatch(path.name).group(1)), reverse=True)  # type: ignore[union-attr]


def clean(folder: Path) -> None:
    """Remove what an interrupted write has left behind."""
    for stray in folder.glob("*.tmp"):
        stray.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint; code inside a file is never executed.

    Raises:
        InputError: if it is missing, damaged, holds anything but tensors and plain values, or is not of this project.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it holds {foreign.group(1)}, not only tensors and plain values" if foreign else "it is no checkpoint"
        raise InputError(f"{path}: refused, {what}; load only files written by scripts/train.py") from error
    except Exception as error:  # reading garbage raises almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: damaged or cut off ({reason}); use an earlier one") from error
    missing = [key for key in _REQUIRED if not isinstance(state, dict) or key not in state]
    if missing:
        raise InputError(f"{path}: no checkpoint of this project (it lacks {', '.join(missing)})")
    return cast(dict[str, Any], state)


def load_newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest readable checkpoint of a folder, or None if there is none at all.

    A damaged one is named in a warning and the one before it taken.

    Raises:
        InputError: if there are checkpoints but none can be read.
    """
    candidates = checkpoints(folder)
    for path in candidates:
        try:
            return path, load(path)
        except InputError as error:
            warnings.warn(f"{error}; trying the one before", stacklevel=2)
    if candidates:
        raise InputError(f"{folder}: none of its {len(candidates)} checkpoints can be read; remove them to start anew")
    return None


def resolve(path: Path) -> Path:
    """The newest checkpoint file where ``path`` is a run folder or its checkpoints folder; else ``path`` itself."""
    if not path.is_dir():
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    found = checkpoints(folder)
    if not found:
        raise InputError(f"{path}: holds no checkpoint (step_*.pt)")
    return found[0]


def check_fits(state: dict[str, Any], config: dict[str, Any], categories: list[dict[str, Any]], path: Path) -> None:
    """Make sure that a run can be resumed from ``state``: same model, same classes.

    Raises:
        InputError: naming both sides.
    """
    old, new = state["categories"], categories
    if len(old) != len(new):
        raise InputError(
            f"{path} was trained on {len(old)} classes, the data has {len(new)}; start a new run (another --out), "
            f"with --set train.init_from={path} to take over all other weights"
        )
    if [c["id"] for c in old] != [c["id"] for c in new]:
        pair = next((a, b) for a, b in zip(old, new, strict=True) if a["id"] != b["id"])
        raise InputError(f"{path}: its classes differ from the data's, the first: {pair[0]} there, {pair[1]} here")
    for key in ("model", "refine"):
        if state["config"][key] != config[key]:
            raise InputError(
                f"{path} was trained with {key}={state['config'][key]}, this run has {key}={config[key]}; "
                "choose another --out, or the same options"
            )


def load_weights(model: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """All weights of a checkpoint into the model it was written from.

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


def load_matching(model: torch.nn.Module, state: dict[str, Any]) -> list[str]:
    """Weights of another run where name and shape agree; returns the names that keep their initial values.

    A host trained alone fits into a refined model: its names are tried with ``host.`` before them, and the reverse.
    """
    own, given = model.state_dict(), dict(state["model"])
    for key in list(given):
        given.setdefault(f"host.{key}", given[key])
        given.setdefault(key.removeprefix("host."), given[key])
    fitting = {key: given[key] for key in own if key in given and given[key].shape == own[key].shape}
    model.load_state_dict(fitting, strict=False)
    return [key for key in own if key not in fitting]
