"""Checkpoints: files of tensors and plain values that a kill, a full disk or a foreign file cannot spoil.

A file is written under another name, flushed to the disk, and renamed: whatever happens, the newest file that bears its
final name is whole. ``models/loading.py`` reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.annotations import Category
from models.loading import checkpoints
from sharpcontour.errors import InputError
from sharpcontour.io.files import write_whole
from sharpcontour.io.weights import not_finite


def save(folder: Path, state: dict[str, Any], step: int, keep: int) -> Path:
    """Write ``step_<step>.pt`` and then drop all but this and the newest earlier ones, ``keep`` checkpoints in all.

    Later ones, which a resumed training could not read, are dropped.

    Args:
        folder: is made if missing.
        state: tensors, dicts, lists, strings, numbers, booleans and None only.
        step: updates done.
        keep: at least 1.

    Raises:
        InputError: where a weight is not finite, the disk is full or not writable; earlier checkpoints stay.
    """
    path = folder / f"step_{step:08d}.pt"
    try:
        save_file(state, path, mend="lower train.base_lr or set train.clip_grad_norm, and resume from an earlier one")
    except InputError as error:
        raise InputError(f"{error}; earlier checkpoints are untouched") from error
    found = checkpoints(folder)  # the newest first
    place = found.index(path)
    for old in (*found[:place], *found[place + max(keep, 1) :]):
        old.unlink(missing_ok=True)
    return path


def save_file(state: Mapping[str, Any], path: str | Path, mend: str) -> None:
    """Write one file of tensors and plain values, whole or not at all.

    Args:
        state: with the weights under "model", or nothing but weights.
        path: of the file.
        mend: what to do where a weight is not finite.

    Raises:
        InputError: where it cannot be written, or a weight is not finite.
    """
    if name := not_finite(state.get("model", state)):
        raise InputError(f"{path}: not written, the weight {name} is not finite; {mend}")
    write_whole(lambda file: torch.save(state, file), path, needed=_bytes(state))


def _bytes(value: object) -> int:
    """Size of all tensors in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(_bytes, parts))


def fingerprint(image_ids: Sequence[int] | np.ndarray) -> dict[str, int | str]:
    """What a checkpoint keeps of the training images: how many, and a hash of their ids in order."""
    ids = np.asarray(image_ids, np.int64)
    return {"count": len(ids), "hash": hashlib.sha256(ids.tobytes()).hexdigest()[:16]}


def check_fits(
    state: dict[str, Any],
    config: dict[str, Any],
    categories: list[Category],
    path: Path,
    images: dict[str, int | str] | None = None,
) -> None:
    """Make sure that a run can be resumed from ``state``: same model, same classes, same training images.

    Args:
        state: contents of the checkpoint; one without "images" is taken as fitting.
        config: of this run, in plain form.
        categories: of the data.
        path: of the checkpoint, for error messages.
        images: from :func:`fingerprint`.

    Raises:
        InputError: naming both sides.
    """
    old, new = state["categories"], categories
    if len(old) != len(new):
        raise InputError(
            f"{path} was trained on {len(old)} classes, the data has {len(new)}; start a new run (another --out), "
            f"with --set train.init_from={path} to take over all other weights"
        )
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if (a["id"], a["name"]) != (b["id"], b["name"])]
    if pairs:
        raise InputError(
            f"{path}: its classes differ from the data's, the first: {pairs[0][0]} there, {pairs[0][1]} here"
        )
    if images is not None and state.get("images", images) != images:
        before = state["images"]["count"]
        raise InputError(
            f"{path}: was trained on {before} images, which are not the {images['count']} of the data, and their order "
            f"depends on it: start a new run (another --out), with --set train.init_from={path} for its weights"
        )
    for key in ("model", "refine"):
        if state["config"][key] != config[key]:
            raise InputError(
                f"{path} was trained with {key}={state['config'][key]}, this run has {key}={config[key]}; "
                "choose another --out, or the same options"
            )


def load_matching(model: torch.nn.Module, state: dict[str, Any]) -> list[str]:
    """Load another run's weights where name and shape agree; returns the names that keep their initial values.

    A host trained alone fits into a refined model: its names are tried with ``host.`` before them, and the reverse.
    """
    own, given = model.state_dict(), dict(state["model"])
    for key in list(given):
        given.setdefault(f"host.{key}", given[key])
        given.setdefault(key.removeprefix("host."), given[key])
    fitting = {key: given[key] for key in own if key in given and given[key].shape == own[key].shape}
    model.load_state_dict(fitting, strict=False)
    return [key for key in own if key not in fitting]
