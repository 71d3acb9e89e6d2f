"""What starts at once: --help of every command, and all that scores or checks files, work without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import GenericAlias

import numpy as np
import pytest

import models
import sharpcontour
from tests.data.test_cityscapes_and_lvis import cityscapes, lvis
from tests.data.test_labelme import folder
from tests.eval import helpers

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("[!_]*.py"))
# A process in which torch and what stands on it cannot be imported.
WITHOUT_TORCH = """
import sys

class Refused:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "tensorboard"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Refused)
"""
START = """
import runpy, sys
from pathlib import Path

del sys.argv[0]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def without_torch(script: str | Path, *arguments: str, cwd: Path) -> str:
    """What a command prints, which succeeds."""
    command = [sys.executable, "-c", WITHOUT_TORCH + START, ROOT / "scripts" / script, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_no_torch(script: str, tmp_path: Path) -> None:
    assert f"usage: {script}" in without_torch(script, "--help", cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "package", "module"),
    [
        (("evaluate.py", "--help"), "numpy", "numpy"),  # at the top of a file
        (("evaluate.py", "--results", "r.json", "--annotations", "gt.json"), "opencv-python", "cv2"),
        (("train.py",), "torch", "torch"),  # where it is needed
    ],
)
def test_a_missing_package_is_told_in_a_line(
    arguments: tuple[str, ...], package: str, module: str, tmp_path: Path
) -> None:
    without = f"import sys; sys.modules[{module!r}] = None\n"
    command = [sys.executable, "-c", without + START, ROOT / "scripts" / arguments[0], *arguments[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"error: this Python has no {package} (" in done.stderr and f"pip install {package} " in done.stderr


def test_help_of_the_installed_command_needs_no_torch(tmp_path: Path) -> None:
    start = tmp_path / "start.py"
    start.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom sharpcontour.app.command import main; main()"
    )
    assert "usage: sharpcontour" in without_torch(start, "--help", cwd=tmp_path)
    assert without_torch(start, "--version", cwd=tmp_path) == f"sharpcontour {sharpcontour.__version__}\n"
    assert "usage: sharpcontour page" in without_torch(start, "page", "--help", cwd=tmp_path)


def test_results_are_scored_without_torch(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    data = helpers.synthetic(rng, 6)
    (tmp_path / "gt.json").write_text(json.dumps(data))
    (tmp_path / "r.json").write_text(json.dumps(helpers.make_detections(data, rng)))
    arguments = ("--results", "r.json", "--annotations", "gt.json", "--bootstrap", "2", "--json", "out.json")
    assert "Boundary AP" in without_torch("evaluate.py", *arguments, cwd=tmp_path)
    assert json.loads((tmp_path / "out.json").read_text())["boundary"]["AP"] > 0


def test_data_sets_are_made_and_checked_without_torch(tmp_path: Path) -> None:
    cityscapes(tmp_path / "cs")
    assert "3 objects, 1 groups" in without_torch("prepare_data.py", "cityscapes", "--root", "cs", cwd=tmp_path)
    assert "car 4" in without_torch("prepare_data.py", "cityscapes", "--root", "cs", "--check", cwd=tmp_path)
    (tmp_path / "lvis.json").write_text(json.dumps(lvis()))
    arguments = ("lvis", "--annotations", "lvis.json", "--out", "cocofied.json")
    assert "of COCO's 80 categories" in without_torch("prepare_data.py", *arguments, cwd=tmp_path)
    folder(tmp_path / "labels")
    arguments = ("labelme", "--root", "labels", "--out", "made")
    assert "train.json: 3 images" in without_torch("prepare_data.py", *arguments, cwd=tmp_path)
    size = ("--train-count", "2", "--val-count", "1", "--size", "96")
    without_torch("prepare_data.py", "shapes", "--root", "set", *size, cwd=tmp_path)
    assert "all readable" in without_torch("prepare_data.py", "shapes", "--root", "set", "--check", cwd=tmp_path)


@pytest.mark.parametrize("package", [sharpcontour, models])
def test_public_names_are_there_when_asked_for(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        found = getattr(package, name)
        assert isinstance(found, GenericAlias) or getattr(found, "__name__", name) == name
    assert set(sharpcontour.__all__) <= set(dir(sharpcontour))
    with pytest.raises(AttributeError, match="has no attribute 'load_refinr'"):
        package.load_refinr  # type: ignore[attr-defined]  # noqa: B018
