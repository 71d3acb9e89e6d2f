"""What ``pip install .`` brings along: the refiner's weights, its types, and the command; from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sharpcontour import __version__
from sharpcontour.app.page import FILES
from tests.sharpcontour.weights import write_weights

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_installed_package_refines(tmp_path: Path) -> None:
    source, target, away = tmp_path / "source", tmp_path / "target", tmp_path / "away"
    shutil.copytree(ROOT / "sharpcontour", source / "sharpcontour", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    write_weights(source / "sharpcontour" / "anymask" / "weights.pt")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run([*install, "--target", target, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (target / "sharpcontour" / "py.typed").is_file() and not (target / "data").exists()
    assert {path.name for path in (target / "sharpcontour" / "app" / "web").iterdir()} == set(dict(FILES.values()))
    assert (target / f"sharpcontour-{__version__}.dist-info").is_dir()
    away.mkdir()
    program = """
import numpy as np, sharpcontour
mask = np.zeros((60, 80), bool)
mask[20:40, 20:50] = True
print(len(sharpcontour.load_refiner().refine(np.zeros((60, 80, 3), np.uint8), [mask])), sharpcontour.__file__)
"""
    environment = {**os.environ, "PYTHONPATH": str(target)}
    for arguments, told in (
        ([sys.executable, "-c", program], f"1 {target}"),
        ([sys.executable, target / "bin" / "sharpcontour", "--help"], "sharpcontour photo.jpg mask.png"),
        ([sys.executable, "-m", "sharpcontour", "--version"], f"sharpcontour {__version__}"),
    ):
        done = subprocess.run(arguments, cwd=away, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and told in done.stdout, done.stderr
