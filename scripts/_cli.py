"""What all commands share. Importing it puts the repository root on ``sys.path``; :func:`run` tells mistakes in a line.

``python scripts/x.py`` and ``torchrun scripts/x.py`` put ``scripts/`` there, and not the root.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sharpcontour.io.command_line import run  # noqa: E402

__all__ = ["ROOT", "run"]
