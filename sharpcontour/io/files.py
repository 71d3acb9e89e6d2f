"""JSON in, JSON out, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import zlib
from pathlib import Path
from typing import Any

from sharpcontour.errors import InputError


def read_json(path: str | Path) -> Any:
    """Contents of a ``.json`` or ``.json.gz`` file.

    Raises:
        InputError: if the file is missing, unreadable, or not JSON (with line and column).
    """
    try:
        data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":  # gzip, whatever the name says
            data = gzip.decompress(data)
        return json.loads(data)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON, line {error.lineno} column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid JSON, byte {error.start} is not UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def save_results(results: Any, path: str | Path) -> None:
    """Write JSON, compressed where the name ends in .gz; see :func:`write_whole`."""
    data = json.dumps(results, allow_nan=False).encode()
    write_whole(gzip.compress(data) if str(path).endswith(".gz") else data, path)


def write_whole(data: bytes, path: str | Path) -> None:
    """Write a file so that it holds either all of ``data`` or what it held before. Folders are made.

    Raises:
        InputError: if it cannot be written (no permission, no space).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    finally:
        with contextlib.suppress(OSError):  # it is gone after success, and may never have been made
            temporary.unlink()


def check_writable(path: str | Path) -> None:
    """Raise InputError if :func:`save_results` could not write there: better before hours of work than after."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    probe = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
