"""What all commands share: mistakes are told in a line, and the option ``--device``."""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import io
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

from sharpcontour.errors import InputError
from sharpcontour.io.device import DEVICES

PACKAGES = {"cv2": "opencv-python"} | {
    name: name for name in ("torch", "torchvision", "numpy", "scipy", "pycocotools", "tensorboard", "tqdm")
}
"""What commands import and what brings it: the packages of requirements.txt."""


def run(main: Callable[[], int | None]) -> None:
    """Run a command and leave: 0 done, 2 wrong use or bad input (a line on stderr), 130 Ctrl-C, 1 a defect of ours."""
    warnings.formatwarning = _one_line
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed; and a file must not take its number, which libraries print to
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may have bytes that the terminal has no characters for
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main() or 0
    except (InputError, json.JSONDecodeError, OSError) as error:
        print(f"error{_process()}: {_message(error)}", file=sys.stderr, flush=True)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except Exception as error:  # printed here, not by the interpreter, so that what it holds (loader processes) can end
        if refusal := _refusal(error):
            print(f"error{_process()}: {refusal}", file=sys.stderr, flush=True)
        else:
            traceback.print_exc()
        code = 2 if refusal else 1
    with contextlib.suppress(KeyboardInterrupt):  # all is done
        gc.collect()  # gloo's threads must not outlive the interpreter; a distributed model holds them in a cycle
    sys.exit(code)


def tell_missing_package(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell a missing package in a line where a command imports what it needs, before :func:`run`; a sys.excepthook.

    Args:
        kind, error, trace: as Python gives them.
    """
    if not (isinstance(error, ModuleNotFoundError) and (refusal := _missing_package(error))):
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {refusal}", file=sys.stderr, flush=True)
    sys.exit(2)


def between(low: float, high: float, what: str) -> Callable[[str], float]:
    """The type of an option that is a number above ``low`` and below ``high``; ``what`` says so where it is none."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low
        if not low < value < high:
            raise argparse.ArgumentTypeError(f"{text} is {what}")
        return value

    return read


def _message(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error}"
    if isinstance(error, OSError):
        if error.filename is None and error.errno == errno.EPIPE:
            return "what reads the output has ended (broken pipe); write the output to a file"
        return ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
    # An error in a loader worker arrives with the worker's traceback before it; a file's name may have several lines.
    message = re.split(r"^sharpcontour\.[\w.]+: ", str(error).strip(), flags=re.MULTILINE)[-1]
    return "\\n".join(message.splitlines())


def _refusal(error: Exception) -> str:
    """What to do where a package is missing, or a device lacks an operation, as Apple's GPU does some of training.

    "" for any other error.
    """
    if isinstance(error, ModuleNotFoundError):
        return _missing_package(error)
    operation = re.search(r"'(\w+::\w+)'", str(error))
    if not isinstance(error, NotImplementedError) or operation is None:
        return ""
    return (
        f"this device cannot compute {operation.group(1)}, which the model needs; choose the device cpu, or on Apple's "
        "GPU let the CPU step in with the environment variable PYTORCH_ENABLE_MPS_FALLBACK=1"
    )


def _missing_package(error: ModuleNotFoundError) -> str:
    package = PACKAGES.get((error.name or "").partition(".")[0])
    if package is None:
        return ""
    return f"this Python has no {package} ({error}): {sys.executable} -m pip install {package} (or -r requirements.txt)"


def _process() -> str:
    rank = os.environ.get("RANK", "0")
    return "" if rank == "0" else f" (process {rank})"


def _one_line(message: Any, category: Any, filename: str, lineno: int, line: str | None = None) -> str:
    return f"warning: {message}\n"


def add_zoom(parser: argparse.ArgumentParser) -> None:
    """The option ``--zoom``."""
    parser.add_argument(
        "--zoom",
        action="store_true",
        help="look at objects whose longer side is about 250 pixels or more again, in tiles of 256 pixels along their "
        "outlines: finer and slower; the whole outline of one that this changes runs along the pixels' edges (default: "
        "each object once, at 256 pixels)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--device``, as :func:`~sharpcontour.io.device.choose_device` understands it."""
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: the first that is there")
