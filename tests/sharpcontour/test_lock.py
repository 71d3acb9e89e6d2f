"""Locks that one process waits for and another holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sharpcontour.io.lock import waited_lock

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sharpcontour.io.lock import waited_lock
with waited_lock(Path(sys.argv[2]), 0) as held:
    print(held, flush=True)
    time.sleep(600)
"""


def test_a_lock_is_free_again_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "file.lock"
    command = [sys.executable, "-c", HOLDER, str(ROOT), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "True\n"
        with waited_lock(path, 0.2) as held:
            assert not held
        holder.kill()
    assert path.exists()
    with waited_lock(path, 5) as held:
        assert held
    assert not path.exists()


def test_where_no_lock_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError), waited_lock(tmp_path, 1):
        pass
