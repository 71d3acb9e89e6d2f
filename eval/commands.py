"""Starting the project's own commands."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of the repository


def command_line(script: str, *arguments: str, processes: int = 0) -> list[str]:
    """The words that start a command, such as "scripts/train.py", with this interpreter.

    Args:
        script: path below the repository's root.
        arguments: of the command.
        processes: that torchrun starts; 0: without torchrun.
    """
    start = [sys.executable]
    if processes:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*start, str(ROOT / script), *arguments]
