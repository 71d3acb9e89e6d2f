"""Reading weights that others wrote, without executing what they may hold.

A pickle is a program: unpickling one can start anything. Here it may build containers, numbers, strings and numpy
arrays of numbers, and nothing else.
"""

from __future__ import annotations

import codecs
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from sharpcontour.errors import InputError

_RECONSTRUCT = np.empty(0).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]


class _ForbiddenError(Exception):
    """The pickle asks for something that weights do not need."""


def _encode(text: str, encoding: str = "utf-8") -> bytes:
    """How pickles of protocol 2 spell bytes; codecs.encode itself knows codecs that decompress."""
    if encoding not in ("latin1", "latin-1", "utf-8"):
        raise _ForbiddenError(f"_codecs.encode to {encoding}")
    return codecs.encode(text, encoding)


def _dtype(*arguments: Any) -> np.dtype:
    """A type of numbers: arrays of objects hold pickles of their own."""
    found = np.dtype(*arguments)
    if found.kind not in "biufSU":
        raise _ForbiddenError(f"numpy.dtype {arguments[0]!r}")
    return found


# numpy's module of internals was renamed in version 2.
_ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _RECONSTRUCT for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _SCALAR for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise _ForbiddenError(f"{module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: object) -> NoReturn:
        raise _ForbiddenError("persistent objects")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a file of torch, or from a pickle of numpy arrays as Detectron2's zoo has them (.pkl).

    They may lie under "model" or "state_dict"; what is no array is left out.

    Raises:
        InputError: for a missing or broken file, and for one that asks for more than numbers; nothing is executed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    found = _read_pickle(path) if path.suffix == ".pkl" else _read_torch(path)
    for key in ("model", "state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no weights by name, but {type(found).__name__}")
    weights: dict[str, Tensor] = {}
    for key, value in found.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            value = torch.from_numpy(np.ascontiguousarray(value))
        if isinstance(key, str) and isinstance(value, Tensor):
            weights[key] = value
    if not weights:
        raise InputError(f"{path}: holds no weights")
    return weights


def _read_pickle(path: Path) -> object:
    try:
        with open(path, "rb") as file:
            return _Unpickler(file, encoding="latin1").load()
    except _ForbiddenError as error:
        raise InputError(
            f"{path}: refused, nothing was executed: it asks for {error}, which weights do not need"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a broken pickle raises whatever it stumbles over
        raise InputError(f"{path}: is no pickle of numpy arrays ({type(error).__name__}: {error})") from error


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: refused, nothing was executed: it holds more than tensors and plain values, or is no file of "
            "torch; a pickle must be named .pkl"
        ) from error
    except Exception as error:  # zip and torch each have their own
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: cannot be read as weights ({line}); a pickle must be named .pkl") from error
