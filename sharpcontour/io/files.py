"""JSON in, JSON out, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from sharpcontour.errors import InputError
from sharpcontour.io.garbage import without_garbage_collection

TEMPORARY = ".tmp"  # ending of a file that is being written
GZIP = b"\x1f\x8b"  # a compressed file begins with it


class UnwritableError(InputError):
    """A file cannot be written: the disk is full, or there is no permission."""


@without_garbage_collection()
def read_json(path: str | Path, kind: str = "file") -> Any:
    """Contents of a ``.json`` or ``.json.gz`` file; ``kind`` says in an error message what it should be.

    Raises:
        InputError: if the file is missing, unreadable, or not JSON (with line and column).
    """
    try:
        data = Path(path).read_bytes()
        if data[:2] == GZIP:  # whatever the name says
            data = gzip.decompress(data)
        return json.loads(data)
    except FileNotFoundError:
        raise InputError(f"{path}: no such {kind}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON, line {error.lineno} column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{path}: not valid JSON, its brackets are nested too deeply") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid JSON, byte {error.start} is not UTF-8") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise InputError(f"{path}: holds a number of thousands of digits") from None
    except MemoryError:
        raise InputError(f"{path}: holds more than there is memory for; split it") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def save_results(results: object, path: str | Path) -> None:
    """Write JSON, compressed where the name ends in .gz; see :func:`write_whole`."""
    data = json.dumps(results, allow_nan=False).encode()
    write_whole(gzip.compress(data) if str(path).endswith(".gz") else data, path)


def write_whole(data: bytes | Callable[[BinaryIO], object], path: str | Path, needed: int = 0) -> None:
    """Write a file so that it holds either all of ``data`` or what it held before, even if the power fails.

    Args:
        data: the contents, or what writes them to an open file.
        path: of the file; its folder is made if missing. Where it is a symbolic link, the file that it names.
        needed: bytes, about, where ``data`` writes itself; for the message of a full disk.

    Raises:
        UnwritableError: if it cannot be written (no permission, no space).
    """
    path = _followed(Path(path))
    needed = len(data) if isinstance(data, bytes) else needed
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            data(file) if callable(data) else file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch tells a full disk as RuntimeError
        raise write_error(path, error, needed) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone after success, and may never have been made
            temporary.unlink()


def _followed(path: Path) -> Path:
    """The file that a symbolic link names, which stays a link when that file is replaced; else ``path`` itself."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def write_error(path: Path, error: Exception, needed: int = 0) -> UnwritableError:
    """Why a file could not be written, in a line: a full disk with what is needed and what is there."""
    free = _free_bytes(path.parent)
    number = getattr(error, "errno", None)
    full = number in (errno.ENOSPC, errno.EDQUOT) or (number is None and free is not None and free <= needed)
    if full:
        there = "" if free is None else f", {free / 2**20:.0f} MiB are free"
        return UnwritableError(f"{path}: the disk is full: {needed / 2**20:.0f} MiB are needed{there}; make room")
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    return UnwritableError(f"{path}: cannot be written ({reason}); choose another place")


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _flush_folder(folder: Path) -> None:
    """Make a renaming in it durable; Windows cannot open folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_temporary(folder: Path) -> None:
    """Remove what a write has left behind that was killed."""
    for stray in folder.glob(f".*{TEMPORARY}"):
        stray.unlink(missing_ok=True)


def check_writable(path: str | Path, others: Iterable[str | Path | None] = ()) -> None:
    """Raise InputError if :func:`save_results` could not write there: better before hours of work than after.

    Args:
        path: of the file.
        others: files that it must not replace, such as those of the input; None is no file.
    """
    path = Path(path)
    for other in others:
        if other is not None and os.path.realpath(other) == os.path.realpath(path):
            raise InputError(
                f"{path}: the command also reads or writes this file for another purpose; choose another name"
            )
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        # A file that takes the name of a device, such as /dev/null, would break what else uses that.
        raise InputError(f"{path}: is a device or a pipe, which a file would replace; give the name of a file")
    aim = _followed(path)
    try:
        # A folder that is missing is made with the file: a command that fails before leaves none behind.
        folder = next(folder for folder in aim.parents if folder.exists())
        probe = folder / f".{aim.name}.{os.getpid()}{TEMPORARY}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
