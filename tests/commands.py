"""The project's commands as users type them, in this process: another one would take seconds to import torch."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def run_script(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a file of scripts/ in a folder: its exit code, and what it wrote to both streams, warnings last."""
    path = SCRIPTS / script
    out, err, code = io.StringIO(), io.StringIO(), 0
    formatted = warnings.formatwarning
    here = Path.cwd()
    os.chdir(cwd)
    try:
        with (
            mock.patch.object(sys, "argv", [str(path), *arguments]),
            mock.patch.object(sys, "path", [str(SCRIPTS), *sys.path]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("default")
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                runpy.run_path(str(path), run_name="__main__")
            except SystemExit as left:
                code = int(left.code or 0)
            told = {warnings.formatwarning(w.message, w.category, w.filename, w.lineno) for w in caught}
    finally:
        os.chdir(here)
        warnings.formatwarning = formatted
    errors = err.getvalue() + "".join(sorted(line for line in told if "Deprecat" not in line))
    return subprocess.CompletedProcess([script, *arguments], code, out.getvalue(), errors)
