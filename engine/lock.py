"""One run at a time in a folder: two would mix their checkpoints and logs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sharpcontour.errors import InputError
from sharpcontour.io.lock import try_lock

NAME = ".lock"


class FolderLock:
    """A lock on a folder, held by this process until it ends, however it ends; loader processes do not inherit it.

    Args:
        folder: is made if missing.

    Raises:
        InputError: where another process holds it, saying which, or where the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (held open: closing it gives the lock up)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error
        if not try_lock(self._file):
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise InputError(
                f"{folder}: {holder} is training in this folder; wait for it, end it, or choose another --out"
            )
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def release(self) -> None:
        """Give the lock up before the process ends."""
        self._file.close()
