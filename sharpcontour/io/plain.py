"""Configuration dataclasses <-> plain dicts, lists and numbers, fit for JSON and for a checkpoint."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

from sharpcontour.errors import InputError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A (nested) config dataclass as plain dicts, lists and numbers, fit for JSON and for a checkpoint."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def from_dict(cls: type[T], values: dict[str, Any], where: str = "") -> T:
    """A config dataclass from plain values, as :func:`to_dict` writes them; fields that are left out keep defaults.

    Raises:
        InputError: for a key that ``cls`` does not have, naming it and the valid ones.
    """
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    unknown = [key for key in values if key not in names]
    if unknown:
        raise InputError(f"unknown configuration key {where}{unknown[0]}; valid here: {', '.join(names)}")
    return cls(**{key: _typed(hints[key], value, f"{where}{key}.") for key, value in values.items()})


def _typed(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType) and value is not None:
        hint = next(arm for arm in typing.get_args(hint) if arm is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        arms = typing.get_args(hint)
        inner = [arms[0]] * len(value) if arms[-1] is Ellipsis else arms
        return tuple(_typed(arm, item, where) for arm, item in zip(inner, value, strict=True))
    return value
