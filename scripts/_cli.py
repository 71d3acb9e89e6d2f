"""What all commands share. Importing it puts the repository root on ``sys.path``; :func:`run` tells mistakes in a line.

``python scripts/x.py`` and ``torchrun scripts/x.py`` put ``scripts/`` there, and not the root.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sharpcontour.io.command_line import add_device, run  # noqa: E402

__all__ = ["ROOT", "add_device", "add_refiner_set", "run"]


def add_refiner_set(parser: argparse.ArgumentParser, whose: str = "") -> None:
    """Add the option ``--set`` for what :func:`engine.config.change_refiner` may change; ``whose`` says of what."""
    what = f"{whose}sharpcontour.evolution... or sharpcontour.tracing..., which need no training"
    parser.add_argument("--set", metavar="KEY=VALUE", dest="overrides", nargs="+", default=[], help=what)
