"""Starting the project's own commands."""

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from sharpcontour.errors import InputError
from sharpcontour.io.signals import StopSignals

ROOT = Path(__file__).resolve().parents[1]  # of the repository
POLL = 0.2  # seconds between two looks whether a command is to be stopped


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


def call(command: list[str], processes: int = 1) -> None:
    """Run one of the project's commands, its output shown.

    SIGTERM and Ctrl-C are passed on, and waited for: a training that gets them saves what it has.

    Raises:
        InputError: where the command fails.
        KeyboardInterrupt: where it was stopped.
    """
    print(f"$ {shlex.join(command)}", flush=True)
    line = command_line(*command, processes=processes if processes > 1 else 0)
    with StopSignals() as signals, subprocess.Popen(line) as process:
        while process.poll() is None and not signals.received:
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
        if signals.received:
            process.terminate()  # and its context waits for it
    if signals.received or process.returncode == 130:
        raise KeyboardInterrupt
    if process.returncode:
        raise InputError(f"{command[0]} ended with exit code {process.returncode}; the reason is above")


def commit() -> str:
    """The short name of the commit that is checked out, "-dirty" behind it where more than records changed."""

    def git(*arguments: str) -> str:
        line = ["git", "-C", str(ROOT), *arguments]
        with suppress(FileNotFoundError):  # without git
            return subprocess.run(line, capture_output=True, text=True, check=False).stdout.strip()
        return ""

    ours = [f":!results/*.{kind}" for kind in ("json", "md", "png")]
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *ours)
    return (git("describe", "--always") or "unknown") + ("-dirty" if changed else "")
