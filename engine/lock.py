"""One training at a time in a folder, or of a file: two would mix their checkpoints and logs."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from sharpcontour.errors import InputError
from sharpcontour.io.lock import is_at, try_lock

NAME = ".lock"


class TrainingLock:
    """A lock on what a training writes, held by this process until it ends, however it ends.

    Loader processes do not inherit it.

    Args:
        out: a run's folder, which is made if missing and gets a file ".lock"; or the file that a training writes, if
            ``is_file``, which gets a file of its name and ".lock" beside it.
        is_file: which of the two.

    Raises:
        InputError: where another process holds it, saying which, or where nothing can be written there.
    """

    def __init__(self, out: Path, is_file: bool = False) -> None:
        self._is_file = is_file
        folder = out.parent if is_file else out
        self._path = out.with_name(out.name + NAME) if is_file else out / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "a+", encoding="utf-8")  # noqa: SIM115 (closing it gives the lock up)
            free = try_lock(self._file) and is_at(self._path, self._file)  # else its last holder has removed it
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error
        if not free:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise InputError(f"{out}: {holder} is training here; wait for it, end it, or choose another --out")
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def release(self) -> None:
        """Give the lock up before the process ends; the file beside another one has then no use any more."""
        if self._is_file:
            with contextlib.suppress(OSError):  # while it is held; Windows removes no open file
                self._path.unlink()
        self._file.close()
