"""Arrays in one file that processes map, so that all of a machine share one copy of them."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sharpcontour.errors import InputError
from sharpcontour.io.files import write_whole

ALIGNED = 64  # bytes, where arrays begin
_CHUNK = 2**20  # bytes
_DIGEST = 64  # characters, then a line's end; behind it what they are the digest of


class DamagedError(ValueError):
    """A file of arrays does not hold what was written to it."""


@dataclass(frozen=True)
class ArrayFile:
    """A file of arrays, and the digest of what it holds.

    It says on the first line this digest, on the second as JSON where the arrays are and what the writer told of them;
    then come the arrays.
    """

    path: Path
    digest: str

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, mapped: read from the disk when they are looked at, and read-only.

        Raises:
            InputError: where the file holds something else by now.
        """
        try:
            with open(self.path, "rb") as file:
                if file.read(_DIGEST).decode("latin-1") != self.digest:
                    raise InputError(f"{self.path}: was written anew while a run uses it; start the run again")
                header = _header(file)
                data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror}); start the run again") from error
        found = {}
        for name, (kind, shape, begin) in header["arrays"].items():
            end = begin + np.dtype(kind).itemsize * int(np.prod(shape))
            found[name] = data[begin:end].view(kind).reshape(shape)
        return found


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write a file of arrays, whole or not at all.

    Args:
        path: of the file.
        arrays: of numbers, by name.
        about: whatever else is to be told of them, as JSON.

    Raises:
        UnwritableError: if it cannot be written (no permission, no space).
    """
    flat = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = _header_of(flat, about)
    parts: list[Any] = [header]
    for array in flat.values():
        parts += [array.reshape(-1).view(np.uint8).data, bytes(-array.nbytes % ALIGNED)]
    digest = blake2b(digest_size=_DIGEST // 2)
    for part in parts:
        digest.update(part)

    def write(file: BinaryIO) -> None:
        file.write(digest.hexdigest().encode())
        for part in parts:
            file.write(part)

    write_whole(write, path, sum(map(len, parts)))


def told(path: Path) -> dict[str, Any]:
    """What the writer of a file of arrays told of them.

    Raises:
        DamagedError: where it is no such file; the arrays are not looked at, see :func:`checked`.
        OSError: where it cannot be read.
    """
    with open(path, "rb") as file:
        file.seek(_DIGEST)
        return _header(file)["about"]


def checked(path: Path) -> ArrayFile:
    """A file of arrays of which every byte is as it was written.

    Raises:
        DamagedError: where one is not.
        OSError: where the file cannot be read.
    """
    with open(path, "rb") as file:
        stored = file.read(_DIGEST).decode("latin-1")
        if digest_of(file) != stored:
            raise DamagedError(f"{path}: is damaged")
    return ArrayFile(path, stored)


def digest_of(file: BinaryIO) -> str:
    """A digest of an open file's contents, from where it stands to its end."""
    digest = blake2b(digest_size=_DIGEST // 2)
    for chunk in _chunks(file):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _header_of(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> bytes:
    """The second line with the end of the first, filled up with spaces to where the first array begins."""
    sizes = [-(-array.nbytes // ALIGNED) * ALIGNED for array in arrays.values()]
    begins = np.cumsum([0, *sizes])

    def header(first: int) -> bytes:
        places = zip(arrays.items(), begins.tolist(), strict=False)
        entries = {name: (array.dtype.str, array.shape, first + begin) for (name, array), begin in places}
        return b"\n" + json.dumps({"about": about, "arrays": entries}).encode()

    room = -(-(_DIGEST + len(header(2**62)) + 1) // ALIGNED) * ALIGNED  # no place has more digits
    return header(room).ljust(room - _DIGEST - 1) + b"\n"


def _header(file: BinaryIO) -> dict[str, Any]:
    """The second line of a file that stands at the end of the first."""
    try:
        if file.read(1) != b"\n":
            raise ValueError("no line of a digest")
        header = json.loads(file.readline())
        return {"about": dict(header["about"]), "arrays": dict(header["arrays"])}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError("no header") from error
