"""Locks on files: who else works on what this process works on."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_PAUSE = 0.1  # s, between two looks at a lock that another process holds


def try_lock(file: IO[str]) -> bool:
    """Lock an open, writable file; False where another process holds it. The system drops the lock with the process.

    Raises:
        OSError: where files cannot be locked, as on some network drives.
    """
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1 << 20)  # a byte far behind the text: Windows refuses to read locked ones
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            file.seek(0)
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


@contextlib.contextmanager
def waited_lock(path: Path, seconds: float) -> Iterator[bool]:
    """Hold a lock in a file that is there only for that time; False where another process keeps it for too long.

    Args:
        path: of the file.
        seconds: how long to wait for the lock.

    Raises:
        OSError: where the file cannot be written, or cannot be locked.
    """
    end = time.monotonic() + seconds
    while True:
        with open(path, "a+", encoding="utf-8") as file:
            if try_lock(file):
                if not is_at(path, file):
                    continue  # the last holder has removed it meanwhile: the others lock another file by now
                try:
                    yield True
                finally:
                    with contextlib.suppress(OSError):  # Windows removes no open file
                        path.unlink()
                return
        if time.monotonic() > end:
            yield False
            return
        time.sleep(_PAUSE)


def is_at(path: Path, file: IO[str]) -> bool:
    """Whether an open file is still the one of that name, which another process may have removed or made anew."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except OSError:
        return False
