"""What a long command has done so far, image by image, so that an interruption loses nothing.

A journal is a file of JSON lines beside the result, named like it with ``.part`` at its end. Its first line says what
the work depends on: a journal of other work is not gone on with.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, Any

from sharpcontour.errors import InputError
from sharpcontour.formats.outlines import counted
from sharpcontour.io.files import UnwritableError, write_error
from sharpcontour.io.images import ImageError
from sharpcontour.io.lock import try_lock


class Journal:
    """Records of what is done, by name; each is on its way to the disk when :meth:`add` returns.

    As a context manager it is closed by whatever ends the work early, and says then how to go on.

    Args:
        result: file that the whole work will be written to.
        work: what it depends on, plain values.

    Attributes:
        done: records by name, those of an interrupted run of the same work too.
        failed: how many images could be read but not worked on.

    Raises:
        InputError: where the file cannot be written, or another process is writing it.
    """

    def __init__(self, result: str | Path, work: Mapping[str, object]) -> None:
        self.path, self.failed, self._interrupted = Path(f"{result}.part"), 0, False
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
        print(
            f"{self.path} is of other work (other files, changed ones, or another choice); it is kept as {other}",
            flush=True,
        )
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

    def attempt(self, name: str, work: Callable[[], Any]) -> Exception | None:
        """Write down what ``work`` returns for an image, unless that is done.

        Whatever is wrong with one image must not cost the others: it is handed back, nothing is written down, and the
        same command tries the image again. What is handed back holds nothing of the work, whose memory, such as that of
        the device, the next image needs.

        Raises:
            UnwritableError: where the work or the journal cannot be written, which no other image would change.
        """
        if name in self.done:
            return None
        try:
            record = work()
        except UnwritableError:
            raise
        except Exception as error:
            self._check_interruption()
            self.failed += not isinstance(error, ImageError)
            return _bare(error)
        self.add(name, record)
        return None

    def require(self, key: str, why: str) -> None:
        """Forget the records that lack a key, as those of a run with other output do; how many they are is said."""
        lacking = [name for name, record in self.done.items() if key not in record]
        for name in lacking:
            del self.done[name]
        if lacking:
            print(f"{len(lacking)} images that were done are done again, {why}", flush=True)

    def attempts(
        self, works: Iterable[tuple[str, Callable[[], Callable[[], Any]]]]
    ) -> Generator[Exception | None, None, None]:
        """Do what :meth:`attempt` does for one image after the other, each ended in a thread while the next one begins.

        At most two images are held at a time. An interruption cuts off only the image that is being begun: those that
        are begun are still ended and written down, in the generator's ``close()`` too.

        Args:
            works: of every image its name, and what begins its work and returns what ends it; the end's result is
                written down.

        Yields:
            For every image, in their order, what :meth:`attempt` returns.

        Raises:
            UnwritableError: as :meth:`attempt` does.
        """
        held: deque[tuple[str, Callable[[], Any]]] = deque()
        with ThreadPoolExecutor(1) as pool:
            try:
                for name, begin in works:
                    held.append((name, self._begin(name, begin, pool)))
                    if len(held) == 2:
                        yield self._end_first(held)
                while held:
                    yield self._end_first(held)
            except UnwritableError:
                raise
            except BaseException:
                for begun in held:
                    self.attempt(*begun)
                raise

    def _end_first(self, held: deque[tuple[str, Callable[[], Any]]]) -> Exception | None:
        """End the first image that is held, which is held until that is written down."""
        error = self.attempt(*held[0])
        held.popleft()
        return error

    def _begin(self, name: str, begin: Callable[[], Callable[[], Any]], pool: ThreadPoolExecutor) -> Callable[[], Any]:
        """Begin an image's work and have it ended in the pool; what is returned waits for its result."""
        if name in self.done:
            return partial(self.done.__getitem__, name)
        try:
            return pool.submit(begin()).result
        except UnwritableError:
            raise
        except Exception as error:
            self._check_interruption()
            return partial(_raise, _bare(error))

    def finish(self) -> int:
        """Close the journal at the end of the work: the exit status, 0, or 1 where images failed, which is said."""
        self.close(finished=not self.failed)
        if self.failed:
            failed = counted(self.failed, "image")
            print(f"{failed} failed; the same command tries what failed again, and only that", flush=True)
        return 1 if self.failed else 0

    def close(self, finished: bool) -> None:
        """Close the file; a finished one is removed, since the result holds all that it did."""
        with contextlib.suppress(OSError):  # of a full disk, which was told when the record was written
            self._file.close()
        if finished:
            self.path.unlink(missing_ok=True)

    def _check_interruption(self) -> None:
        """Raise what a library took for an error of its own, as numpy does where it converts others' arrays."""
        if self._interrupted:
            raise KeyboardInterrupt

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        raise KeyboardInterrupt

    def __enter__(self) -> Journal:
        main = threading.current_thread() is threading.main_thread()  # Python allows handlers there only
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # another one is somebody's choice
            signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if signal.getsignal(signal.SIGINT) == self._interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if kind is not None and not self._file.closed:
            self.close(finished=False)
            print(f"what is done so far is in {self.path}; the same command goes on from there", flush=True)


def _bare(error: Exception) -> Exception:
    """The error without the work that failed, whose memory it would hold."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _raise(error: Exception) -> None:
    raise error


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


def in_a_line(error: Exception) -> str:
    """An exception for a list of them; that of a defect, or of the device, begins with its kind."""
    first = (str(error).splitlines() or [""])[0]
    return first if isinstance(error, InputError) else f"{type(error).__name__}: {first}"


def fingerprint_of(path: str | Path) -> list[object]:
    """What tells one state of a file from another: its path, size and time; of a folder, those of its checkpoints."""
    try:
        stat = os.stat(path)
    except OSError:
        return [str(path)]
    if Path(path).is_dir():  # the time of a run's folder stays as it is when a checkpoint is added below it
        return [str(path), *(fingerprint_of(one) for one in sorted(Path(path).rglob("*.pt")) if one.is_file())]
    return [str(path), stat.st_size, stat.st_mtime_ns]
