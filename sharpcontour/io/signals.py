"""SIGTERM and Ctrl-C ask a run to save and leave; another one some seconds later ends it at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

_SAME = 5.0  # seconds; a scheduler and torchrun may both pass on what is one request


class StopSignals:
    """A context in which the first SIGTERM or SIGINT only sets ``received``.

    Loader workers must outlive both (the whole process group gets them), or the step under way could not be finished.
    """

    def __init__(self) -> None:
        self.received = False
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there only
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.received:
            self.received, self._since = True, now
        elif now - self._since > _SAME:
            signal.signal(number, self._before[number])
            os.kill(os.getpid(), number)
