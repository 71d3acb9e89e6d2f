"""Locks on files: who else works on what this process works on."""

from __future__ import annotations

import os
from typing import IO


def try_lock(file: IO[str]) -> bool:
    """Lock an open, writable file; False where another process holds it. The system drops the lock with the process."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1 << 20)  # a byte far behind the text: Windows refuses to read locked ones
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            file.seek(0)
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
