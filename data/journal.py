"""What a long command has done so far, image by image, so that an interruption loses nothing.

A journal is a file of JSON lines beside the result, named like it with ``.part`` at its end. Its first line says what
the work depends on: a journal of other work is not gone on with.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sharpcontour.io.files import write_error


class Journal:
    """Records by the name of what they are about; every one is on its way to the disk when :meth:`add` returns.

    Args:
        result: file that the whole work will be written to.
        work: what it depends on, plain values.

    Attributes:
        done: records of an interrupted run of the same work, by name.

    Raises:
        InputError: where the file cannot be written.
    """

    def __init__(self, result: str | Path, work: dict[str, Any]) -> None:
        self.path = Path(f"{result}.part")
        self._head = json.dumps({"work": work}, sort_keys=True)
        self.done = self._read()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "w", encoding="utf-8") as file:
                file.write(self._head + "\n")
                file.writelines(f"{_line(name, record)}\n" for name, record in self.done.items())
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (kept open: a line an image)
        except OSError as error:
            raise write_error(self.path, error) from error

    def _read(self) -> dict[str, Any]:
        """The records of an interrupted run; a line that a kill cut off is left out."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return {}
        if not lines or lines[0] != self._head:
            return {}
        found = {}
        for line in lines[1:]:
            try:
                entry = json.loads(line)
                found[entry["name"]] = entry["record"]
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def add(self, name: str, record: Any) -> None:
        """Write one record down.

        Raises:
            InputError: where the disk is full.
        """
        try:
            self._file.write(_line(name, record) + "\n")
            self._file.flush()
        except OSError as error:
            raise write_error(self.path, error) from error

    def close(self, finished: bool) -> None:
        """Close the file; a finished one is removed, since the result holds all that it did."""
        self._file.close()
        if finished:
            self.path.unlink(missing_ok=True)


def _line(name: str, record: Any) -> str:
    return json.dumps({"name": name, "record": record}, allow_nan=False)


def fingerprint_of(path: str | Path) -> list[Any]:
    """What tells one state of a file from another: its path, size and time."""
    try:
        stat = os.stat(path)
    except OSError:
        return [str(path)]
    return [str(path), stat.st_size, stat.st_mtime_ns]
