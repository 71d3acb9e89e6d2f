"""What all commands share. Importing it puts the repository root on ``sys.path``; :func:`run` tells mistakes in a line.

``python scripts/x.py`` and ``torchrun scripts/x.py`` put ``scripts/`` there, and not the root.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sharpcontour.io.command_line import add_device, add_zoom, run, tell_missing_package  # noqa: E402

sys.excepthook = tell_missing_package

NO_ZOOM = "--zoom is for the package's refiner and for --weights, which scripts/export.py makes of an anymask run"

__all__ = [
    "NO_ZOOM",
    "ROOT",
    "add_device",
    "add_refiner_set",
    "add_set",
    "add_speed",
    "add_zoom",
    "is_faster",
    "run",
    "speed_of",
]


def add_set(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option ``--set``, which may be given several times; ``what`` is its help."""
    parser.add_argument(
        "--set", metavar="KEY=VALUE", dest="overrides", action="extend", nargs="+", default=[], help=what
    )


def add_refiner_set(parser: argparse.ArgumentParser, whose: str = "") -> None:
    """Add ``--set`` for what :func:`engine.config.change_refiner` may change; ``whose`` says of what."""
    add_set(parser, f"{whose}sharpcontour.evolution... or sharpcontour.tracing..., which need no training")


def add_speed(parser: argparse.ArgumentParser) -> None:
    """Add ``--amp``, ``--channels-last`` and ``--tf32``, which are arguments of :func:`models.speed.faster`."""
    add = parser.add_argument
    half = "compute in half precision what bears it; scores differ in the third digit; fp16 is for GPUs (default: none)"
    add("--amp", choices=("none", "bf16", "fp16"), default="none", help=half)
    add("--channels-last", action="store_true", help="other layout of weights: faster, the last digits differ")
    add("--tf32", action="store_true", help="matrix products in NVIDIA's 19-bit format, as convolutions are anyway")


def speed_of(args: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`add_speed` as keyword arguments of :func:`models.speed.faster`."""
    return {"amp": args.amp, "channels_last": args.channels_last, "tf32": args.tf32}


def is_faster(args: argparse.Namespace) -> bool:
    """Whether any option of :func:`add_speed` was given."""
    return args.amp != "none" or args.channels_last or args.tf32
