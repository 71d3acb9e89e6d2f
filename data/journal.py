"""What a long command has done so far, image by image, so that an interruption loses nothing.

A journal is a file of JSON lines beside the result, named like it with ``.part`` at its end. Its first line says what
the work depends on: a journal of other work is not gone on with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from sharpcontour.errors import InputError
from sharpcontour.io.files import write_error
from sharpcontour.io.lock import try_lock


class Journal:
    """Records of what is done, by name; each is on its way to the disk when :meth:`add` returns.

    Args:
        result: file that the whole work will be written to.
        work: what it depends on, plain values.

    Attributes:
        done: records of an interrupted run of the same work, by name.

    Raises:
        InputError: where the file cannot be written, or another process is writing it.
    """

    def __init__(self, result: str | Path, work: Mapping[str, object]) -> None:
        self.path = Path(f"{result}.part")
        head = json.dumps({"work": work}, sort_keys=True)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
            lines = self._file.read().split("\n")
            if lines != [""] and lines[0] != head:
                self._set_aside()
                lines = [""]
            self.done = _records(lines[1:])
            if lines == [""]:
                self._file.write(head)
            if lines[-1] or lines == [""]:  # of a line that a kill cut off nothing more is read
                self._file.write("\n")
            self._file.flush()
        except OSError as error:
            raise write_error(self.path, error) from error

    def _open(self) -> IO[str]:
        """Open the file at its beginning, for this process alone; what is written is appended."""
        file = open(self.path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115 (kept open: a line an image)
        if not try_lock(file):
            file.close()
            raise InputError(f"{self.path}: another process is writing it; wait for it, or choose another --out")
        file.seek(0)
        return file

    def _set_aside(self) -> None:
        """Keep what an interrupted run of other work has done under another name, and begin anew."""
        number = 1
        while (other := Path(f"{self.path}.{number}")).exists():
            number += 1
        self._file.close()
        os.rename(self.path, other)
        print(f"{self.path} is of other work (other files, or changed ones); it is kept as {other}", flush=True)
        self._file = self._open()

    def add(self, name: str, record: object) -> None:
        """Write down one record, plain values, under the name of what it is about.

        Raises:
            InputError: where the disk is full.
        """
        line = json.dumps({"name": name, "record": record}, allow_nan=False)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise write_error(self.path, error) from error
        self.done[name] = json.loads(line)["record"]

    def close(self, finished: bool) -> None:
        """Close the file; a finished one is removed, since the result holds all that it did."""
        self._file.close()
        if finished:
            self.path.unlink(missing_ok=True)


def _records(lines: Iterable[str]) -> dict[str, Any]:
    """The records by name in a journal's lines; one that a kill cut off is left out."""
    found = {}
    for line in lines:
        try:
            entry = json.loads(line)
            found[entry["name"]] = entry["record"]
        except (ValueError, KeyError, TypeError):
            continue
    return found


def fingerprint_of(path: str | Path) -> list[str | int]:
    """What tells one state of a file from another: its path, size and time."""
    try:
        stat = os.stat(path)
    except OSError:
        return [str(path)]
    return [str(path), stat.st_size, stat.st_mtime_ns]
