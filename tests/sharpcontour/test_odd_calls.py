"""Commands that are called in odd ways: names that are empty or of several lines, streams that are closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sharpcontour.errors import InputError
from sharpcontour.io.command_line import _message
from tests.commands import run_script

H, W = 60, 80
ROOT = Path(__file__).resolve().parents[2]


def test_a_name_of_several_lines_is_told_whole() -> None:
    assert _message(InputError("no\nsuch.png: no such image")) == "no\\nsuch.png: no such image"


@pytest.mark.parametrize("option", ["--image", "--results"])
def test_an_empty_name_is_told(option: str, tmp_path: Path) -> None:
    more = ["--masks", "a.png"] if option == "--image" else ["--images", ".", "--out", "r.json"]
    done = run_script("refine.py", option, "", *more, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="Windows closes no streams")
def test_streams_that_are_closed_change_nothing(tmp_path: Path) -> None:
    """Without them a progress bar fails, and what a library prints would go into the first file that is opened."""
    code = "from sharpcontour.io.command_line import run; import sys; "
    code += "run(lambda: print(1) or sys.stderr.write('2') - len(sys.stdin.read()) - 1)"
    closed = f'"{sys.executable}" -c "{code}" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", closed], cwd=ROOT, timeout=120).returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="by a shell's pipe")
def test_scores_are_kept_where_nothing_reads_what_is_printed(tmp_path: Path) -> None:
    polygon = [[10, 10, 40, 10, 40, 40, 10, 40]]
    found = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": polygon}
    truth = {
        "images": [{"id": 1, "height": H, "width": W}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{**found, "id": 1, "area": 900}],
    }
    (tmp_path / "r.json").write_text(json.dumps([found]))
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    script = f'"{sys.executable}" "{ROOT}/scripts/evaluate.py" --results r.json --annotations gt.json --json s.json'
    done = subprocess.run(
        ["sh", "-c", f"{script} | true"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (tmp_path / "s.json").is_file(), done.stderr
    assert "Traceback" not in done.stderr
