"""Commands that start other commands: what they say, and what becomes of these when they are stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval import commands
from eval.commands import ROOT, call
from sharpcontour.errors import InputError

SAVES = """
import signal, sys, time
def save(number, frame):
    open("saved", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
open("started", "w").close()
time.sleep(60)
"""
CALLS = "import sys; from eval.commands import call; call([sys.argv[1]])"


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commands.commit() == "unknown"


def test_a_failure_names_the_command(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("raise SystemExit(3)")
    with pytest.raises(InputError, match=r"fails\.py ended with exit code 3; the reason is above"):
        call([str(tmp_path / "fails.py")])


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Windows are others")
def test_a_command_that_is_stopped_stops_what_it_started(tmp_path: Path) -> None:
    script = tmp_path / "saves.py"
    script.write_text(SAVES)
    process = subprocess.Popen(
        [sys.executable, "-c", CALLS, str(script)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        if (tmp_path / "started").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert (tmp_path / "saved").exists()


def test_a_commit_is_dirty_where_more_than_records_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        line = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=b", *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()

    for name in ("code.py", "results/start.pt", "results/runs/a.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "c")
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    short = git("describe", "--always")
    (tmp_path / "results/runs/a.json").write_text("2")
    assert commands.commit() == short
    for name in ("results/start.pt", "code.py"):
        (tmp_path / name).write_text("2")
        assert commands.commit() == f"{short}-dirty"
        git("checkout", "--", name)
    monkeypatch.setattr(commands, "ROOT", tmp_path / "none")
    assert commands.commit() == "unknown"
