"""JSON files that are too long to be held as Python objects: their long lists are parsed piece by piece.

One pass over the bytes finds where the lists of the outermost object begin and end, and ends of entries to cut them at;
nothing is parsed on it. What stands outside these lists, and every piece of one when its turn comes, is parsed as JSON.
Since a cut is made only behind an entry, a file is right where all of this is, and where it is not, the file is read
again as a whole, which tells what is wrong and where.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from sharpcontour.errors import InputError
from sharpcontour.io.files import GZIP, read_json

LARGE = 32 * 2**20
"""Bytes from which on a file is read in pieces."""

PIECE = 2**20  # bytes of a list, about, that are parsed at once
_LIST, _OBJECT, _CLOSE, _QUOTE = 1, 2, 3, 4
_KINDS = bytes({91: _LIST, 123: _OBJECT, 93: _CLOSE, 125: _CLOSE, 34: _QUOTE}.get(byte, 0) for byte in range(256))
_STEPS = np.array([0, 1, 1, -1, 0], np.int64)  # levels that a byte of each kind leads up or down
_ESCAPE = re.compile(rb"\\.", re.DOTALL)


class LongList:
    """A list of the outermost object of a JSON file, read anew whenever one goes through it.

    Args:
        path: of the file.
        kind: what the file should be, for error messages.
        pieces: where the list's pieces begin and end, in bytes; of a compressed file in those that it stands for.
    """

    def __init__(self, path: Path, kind: str, pieces: list[tuple[int, int]]) -> None:
        self.path, self.kind, self.pieces = path, kind, pieces

    def parts(self) -> Iterator[list[Any]]:
        """The entries of one piece after another.

        Raises:
            InputError: where a piece is not JSON, with line and column.
        """
        with _opened(self.path) as file:
            for number, (begin, end) in enumerate(self.pieces):
                file.seek(begin)
                try:
                    part = _entries(file.read(end - begin), number, len(self.pieces))
                except (ValueError, RecursionError):
                    read_json(self.path, self.kind)
                    raise InputError(f"{self.path}: was changed while it was read; start again") from None
                yield part


def _entries(piece: bytes, number: int, count: int) -> list[Any]:
    """The entries in a piece of a list; ValueError where it is not JSON, or cannot follow the piece before it."""
    text = piece.decode("utf-8", "surrogatepass")
    if number:
        before, comma, text = text.partition(",")
        if before.strip(" \t\n\r") or (not comma and number + 1 < count):
            raise ValueError("no comma between two entries")
        if not comma:
            return []
    entries = json.loads(f"[{text}]")
    if number and not entries:
        raise ValueError("no entry behind a comma")
    return entries


def read_long_json(path: str | Path, kind: str = "file") -> Any:
    """Contents as :func:`~sharpcontour.io.files.read_json` gives them, of a large file without its long lists.

    Of a file of :data:`LARGE` bytes or more that holds an object, every list of this object that is longer than a
    piece is a :class:`LongList`. Such a list is checked when one goes through it.

    Raises:
        InputError: see :func:`~sharpcontour.io.files.read_json`.
    """
    path = Path(path)
    try:
        if is_large(path):
            return _in_pieces(path, kind)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError, MemoryError):
        pass  # told below, in the words of the usual reader
    return read_json(path, kind)


def is_large(path: Path) -> bool:
    """Whether a file is read in pieces; OSError where there is none."""
    return path.stat().st_size >= LARGE


def _in_pieces(path: Path, kind: str) -> dict[str, Any]:
    outline = _Outline()
    with _opened(path) as file:
        while block := file.read(PIECE):
            while block.endswith(b"\\") and (more := file.read(1)):
                block += more
            outline.add(block)
    skeleton = bytes(outline.skeleton)
    if not json.detect_encoding(skeleton).startswith("utf-8"):
        raise ValueError("other bytes than those of UTF-8 stand for brackets")
    data = json.loads(skeleton)
    if not isinstance(data, dict):
        raise ValueError("no object")
    for key, value in data.items():
        if isinstance(value, list):
            found = LongList(path, kind, outline.lists[value[0]])
            data[key] = found if len(found.pieces) > 1 else next(found.parts())
    return data


class _Outline:
    """Where the lists of the outermost object are.

    Attributes:
        skeleton: the file without what stands in these lists, each of which holds its number instead.
        lists: of each list, where its pieces begin and end.
    """

    def __init__(self) -> None:
        self.skeleton, self.lists = bytearray(), list[list[tuple[int, int]]]()
        self._begin: int | None = None  # of the piece that is not at its end yet
        self._offset = self._depth = self._inside = 0  # before the next block: bytes, levels, 1 in a string

    def add(self, block: bytes) -> None:
        """Go over the next bytes of the file, which do not end within an escape sequence."""
        where, kinds, depth = self._structure(block)
        kept = 0
        for k in np.flatnonzero(((depth == 2) & (kinds == _LIST)) | ((depth == 1) & (kinds == _CLOSE))):
            place = int(where[k])
            if kinds[k] == _LIST:
                self.skeleton += block[kept : place + 1] + str(len(self.lists)).encode()
                self.lists.append([])
                self._begin = self._offset + place + 1
            elif self._begin is not None:
                self.lists[-1].append((self._begin, self._offset + place))
                self._begin, kept = None, place
        if self._begin is None:
            self.skeleton += block[kept:]
        else:
            ends = self._offset + 1 + where[(depth == 2) & (kinds == _CLOSE)]
            if len(ends) and ends[-1] > self._begin:
                self.lists[-1].append((self._begin, int(ends[-1])))
                self._begin = int(ends[-1])
        self._offset += len(block)

    def _structure(self, block: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The brackets outside of strings: their places, their kinds, and the level behind each."""
        if b"\\" in block:
            block = _ESCAPE.sub(b"  ", block)
        codes = np.frombuffer(block.translate(_KINDS), np.uint8)
        where = np.flatnonzero(codes)
        kinds = codes[where]
        quotes = kinds == _QUOTE
        inside = (self._inside + np.cumsum(quotes)) & 1
        if len(inside):
            self._inside = int(inside[-1])
        told = ~quotes & (inside == 0)
        where, kinds = where[told], kinds[told]
        depth = self._depth + np.cumsum(_STEPS[kinds])
        if len(depth):
            self._depth = int(depth[-1])
        return where, kinds, depth


def _opened(path: Path) -> BinaryIO:
    """The file, uncompressed on the way."""
    with open(path, "rb") as file:
        compressed = file.read(2) == GZIP
    return cast("BinaryIO", gzip.open(path) if compressed else open(path, "rb"))  # the caller closes it
