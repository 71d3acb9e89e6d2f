"""What a wheel brings along: the refiner's weights, its types, and the command; in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from sharpcontour import __version__
from sharpcontour.app.page import FILES
from tests.sharpcontour.weights import write_weights

ROOT = Path(__file__).resolve().parents[2]


def call(*arguments: str | Path, cwd: Path) -> str:
    """What a command prints, which succeeds."""
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_refines_in_a_fresh_environment(tmp_path: Path) -> None:
    source, fresh, away = tmp_path / "source", tmp_path / "fresh", tmp_path / "away"
    shutil.copytree(ROOT / "sharpcontour", source / "sharpcontour", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    write_weights(source / "sharpcontour" / "anymask" / "weights.pt")
    wheels = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", tmp_path]
    call(sys.executable, "-m", "pip", "wheel", *wheels, source, cwd=tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name == f"sharpcontour-{__version__}-py3-none-any.whl"
    venv.create(fresh, with_pip=True)
    python = fresh / "bin" / "python"
    call(python, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", wheel, cwd=tmp_path)
    [packages] = fresh.glob("lib/python*/site-packages")
    # torch and the others are large: those of this environment, and nothing else of it, since it comes behind.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    assert (packages / "sharpcontour" / "py.typed").is_file() and not (packages / "data").exists()
    web = packages / "sharpcontour" / "app" / "web"
    assert {path.name for path in web.iterdir()} == set(dict(FILES.values()))
    away.mkdir()
    shutil.copy(ROOT / "docs" / "coffee.jpg", away / "photo.jpg")
    shutil.copy(ROOT / "docs" / "cup.png", away / "mask.png")
    program = """
import numpy as np, sharpcontour
mask = np.zeros((60, 80), bool)
mask[20:40, 20:50] = True
print(len(sharpcontour.load_refiner().refine(np.zeros((60, 80, 3), np.uint8), [mask])), sharpcontour.__file__)
"""
    assert call(python, "-c", program, cwd=away) == f"1 {packages / 'sharpcontour' / '__init__.py'}\n"
    assert call(python, "-m", "sharpcontour", "--version", cwd=away) == f"sharpcontour {__version__}\n"
    assert "1. mask" in call(fresh / "bin" / "sharpcontour", "photo.jpg", "mask.png", cwd=away)
    assert {path.suffix for path in (away / "photo_sharp").iterdir()} == {".json", ".svg", ".png"}
