"""What all commands share. Importing it puts the repository root on ``sys.path``; :func:`run` tells mistakes in a line.

``python scripts/x.py`` and ``torchrun scripts/x.py`` put ``scripts/`` there, and not the root.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sharpcontour.errors import InputError  # noqa: E402


def run(main: Callable[[], int | None]) -> None:
    """Run a command and leave: 0 done, 2 wrong use or bad input (a line on stderr), 130 Ctrl-C, 1 a defect of ours."""
    warnings.formatwarning = _one_line
    try:
        code = main() or 0
    except (InputError, json.JSONDecodeError, FileNotFoundError, PermissionError, NotADirectoryError) as error:
        print(f"error{_process()}: {_message(error)}", file=sys.stderr, flush=True)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except Exception:  # printed here, not by the interpreter, so that what it holds (loader processes) can end
        traceback.print_exc()
        code = 1
    gc.collect()  # gloo's threads must not outlive the interpreter; a distributed model holds them in a cycle
    sys.exit(code)


def _message(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error}"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    # An error in a loader worker arrives with the worker's traceback before it.
    line = str(error).strip().splitlines()[-1]
    return line.removeprefix("sharpcontour.errors.InputError: ")


def _process() -> str:
    rank = os.environ.get("RANK", "0")
    return "" if rank == "0" else f" (process {rank})"


def _one_line(message: Any, category: Any, filename: str, lineno: int, line: str | None = None) -> str:
    return f"warning: {message}\n"
