"""The configuration of a training run: one dataclass, its JSON form, and ``--set a.b=c``."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import textwrap
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from data.config import DataConfig
from engine.limits import range_fault
from sharpcontour.config import SharpContourConfig
from sharpcontour.errors import InputError

if TYPE_CHECKING:
    from torch import nn

_OF_PHI = {  # settings that the regressions of Table 9 do not read
    *(f"loss.{name}" for name in ("gamma", "alpha_limits", "weight")),
    *(f"evolution.{name}" for name in ("ratio", "max_steps", "adaptive_step", "freeze", "resample_iterations")),
    *(f"evolution.{name}" for name in ("temperature", "margin", "min_gain", "interpolate_flip")),
}


@dataclass
class TrainConfig:
    """Settings of optimisation, schedule and bookkeeping; the defaults are FCOS R50 1x: SGD, 16 images, 90k updates."""

    images_per_batch: int = 16  # of one update, over all processes and accumulation steps
    accumulation: int = 1  # forward/backward passes per update, each with its share of the images
    iterations: int = 90_000  # updates
    optimizer: Literal["sgd", "adamw"] = "sgd"
    base_lr: float = 0.01  # at reference_batch images; scaled linearly with images_per_batch
    reference_batch: int = 16  # images
    momentum: float = 0.9  # of SGD
    weight_decay: float = 1e-4  # on weights
    norm_weight_decay: float = 0.0  # on the parameters of norm layers
    bias_weight_decay: float | None = None  # on biases; none: as on weights; Detectron: 0
    bias_lr_factor: float = 1.0  # of the learning rate, for biases; Detectron: 2
    clip_grad_norm: float = 0.0  # largest 2-norm of all gradients together; 0: no clipping, as published
    schedule: Literal["step", "cosine"] = "step"  # cosine falls to 0 at the end
    steps: tuple[int, ...] = (60_000, 80_000)  # updates after which the rate is multiplied by decay (schedule=step)
    decay: float = 0.1
    warmup_iterations: int = 1000  # updates over which the rate rises linearly
    warmup_factor: float = 1e-3  # of the rate, where the warm-up begins
    amp: Literal["none", "bf16", "fp16"] = "none"  # automatic mixed precision; the point classifier stays in float32
    # Checkpoint, run, or file of the package's refiner, whose weights are taken where name and shape agree; "": none.
    init_from: str = ""
    seed: int = 0  # of initial weights, image order and sampled points; augmentation: data.seed
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"  # auto: the first of cuda, mps, cpu that is there
    log_period: int = 20  # updates between two progress lines
    checkpoint_period: int = 1000  # updates
    keep_checkpoints: int = 3  # the newest so many are kept
    eval_period: int = 0  # updates between two evaluations; 0: only at the end
    eval_batch: int = 1  # images of one forward pass in an evaluation
    pictures: int = 8  # validation images drawn at each evaluation


@dataclass
class Config:
    """Everything a run depends on, stored as ``config.json`` and in every checkpoint."""

    model: str  # name in models.MODELS
    host: Any  # that model's own config dataclass
    refine: bool  # whether SharpContour stands behind it
    sharpcontour: SharpContourConfig = field(default_factory=SharpContourConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def apply_overrides(config: Config, assignments: list[str]) -> None:
    """Change ``config`` in place by assignments such as ``train.base_lr=0.02``, ``data.short_sides=480,512``.

    Raises:
        InputError: for an unknown key (naming the nearest ones), or a value of the wrong type or out of range.
    """
    fields = dict(_leaves(config))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: write it as key=value, e.g. train.base_lr=0.02")
        if key not in fields:
            raise InputError(f"--set {key}: no such key; nearest: {', '.join(_nearest(key, list(fields)))}")
        owner, hint = fields[key]
        try:
            value = _parse(text, hint)
        except (ValueError, SyntaxError) as error:
            raise InputError(f"--set {key}={text}: expected {_describe(hint)}") from error
        if fault := range_fault(key, value):
            raise InputError(f"--set {key}={text}: {fault}")
        setattr(owner, key.rpartition(".")[2], value)


def refuse_unread(keys: Iterable[str], output: str) -> None:
    """Refuse settings of the march and of phi's loss for a refiner that has neither.

    Args:
        keys: dotted names that --set gives.
        output: the refiner's ``classifier.output``.

    Raises:
        InputError: naming the key.
    """
    for key in keys:
        if output in ("vector", "distance") and key.removeprefix("sharpcontour.") in _OF_PHI:
            raise InputError(f"--set {key}: a regression, classifier.output={output}, has no use for it; leave it out")


def change_refiner(model: nn.Module, assignments: list[str]) -> None:
    """Settings of a trained refiner that no weight depends on (Tables 5, 7 and 8), as of :func:`apply_overrides`.

    Raises:
        InputError: where ``model`` has no refiner, and for settings that training has fixed.
    """
    if not assignments:
        return
    from sharpcontour.refined_model import RefinedModel  # here: configurations alone need no torch

    if not isinstance(model, RefinedModel):
        raise InputError("--set changes the refiner; this checkpoint has none: train with --refine")
    for assignment in assignments:
        if not assignment.startswith(("sharpcontour.evolution.", "sharpcontour.tracing.")):
            raise InputError(f"--set {assignment}: only sharpcontour.evolution and .tracing can change after training")
    refuse_unread((one.partition("=")[0] for one in assignments), model.refiner.config.classifier.output)
    apply_overrides(Config("", model.host.config, True, model.refiner.config), assignments)


def flat(config: Any) -> dict[str, Any]:
    """Every value of a nested config by its dotted name."""
    return {key: getattr(owner, key.rpartition(".")[2]) for key, (owner, _) in _leaves(config)}


def describe(config: Config) -> str:
    """The resolved configuration, one paragraph for each dataclass in it."""
    lines: dict[str, list[str]] = {}
    for key, value in flat(config).items():
        owner, _, name = key.rpartition(".")
        text = ",".join(str(item) for item in value) if isinstance(value, (list, tuple)) else str(value)
        lines.setdefault(owner, []).append(f"{name}={text or repr(text)}")
    return "\n".join(
        textwrap.fill(
            f"{owner}: {' '.join(values)}",
            width=120,
            initial_indent="  ",
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for owner, values in lines.items()
    )


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Where two configs in plain form differ, as ``key: old -> new``."""
    found = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} -> {b}")
    return found


def _leaves(config: Any, prefix: str = "") -> list[tuple[str, tuple[Any, Any]]]:
    """Dotted name, owner and type of every value; ``model`` and ``refine`` have their own options."""
    hints = typing.get_type_hints(type(config))
    leaves: list[tuple[str, tuple[Any, Any]]] = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            leaves += _leaves(value, f"{prefix}{f.name}.")
        elif not (isinstance(config, Config) and f.name in ("model", "refine")):
            leaves.append((prefix + f.name, (config, hints[f.name])))
    return leaves


def _nearest(key: str, valid: list[str]) -> list[str]:
    """Up to three valid keys that resemble ``key``; one given without its section is found too."""
    same = [name for name in valid if name.rpartition(".")[2] == key.rpartition(".")[2]]
    close = difflib.get_close_matches(key, valid, n=3, cutoff=0.5)
    last = {name.rpartition(".")[2]: name for name in valid}
    close += [last[name] for name in difflib.get_close_matches(key.rpartition(".")[2], list(last), n=3)]
    return list(dict.fromkeys(same + close))[:3] or valid[:3]


def _parse(text: str, hint: Any) -> Any:
    """``text`` as a value of type ``hint``; ValueError where it is none."""
    arms = typing.get_args(hint)
    if type(None) in arms:
        return None if text.lower() in ("none", "null") else _parse(text, next(a for a in arms if a is not type(None)))
    if typing.get_origin(hint) is Literal:
        if text not in arms:
            raise ValueError(text)
        return text
    if typing.get_origin(hint) is tuple:
        parts = [part.strip() for part in text.strip("()[]").split(",") if part.strip()]
        inner = [arms[0]] * len(parts) if arms[-1] is Ellipsis else list(arms)
        if len(inner) != len(parts):
            raise ValueError(text)
        return tuple(_parse(part, arm) for part, arm in zip(parts, inner, strict=True))
    if hint is bool:
        return {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else _fail(text)
    if hint is str:
        return text
    if hint is int:
        return int(text.replace("_", ""))
    if hint is float:
        return float(text)
    return ast.literal_eval(text)


def _fail(text: str) -> bool:
    raise ValueError(text)


def _describe(hint: Any) -> str:
    """A type in words for an error message."""
    arms = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, arms))
    if typing.get_origin(hint) is tuple:
        if arms[-1] is Ellipsis:
            return f"a list of {_describe(arms[0])}, such as 1,2,3"
        return f"{len(arms)} values separated by commas, each {_describe(arms[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(hint, str(hint))
