"""Writing numbers, and the table."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from eval.results import format_categories, format_table
from sharpcontour.errors import InputError
from sharpcontour.io.files import check_writable, save_results
from tests.eval.helpers import NAMES


def numbers(first: float, large: float | None = 90.0) -> dict[str, dict[str, float | None]]:
    values: dict[str, float | None] = {name: first + k for k, name in enumerate(NAMES)}
    return {"segm": values | {"APl": large}, "boundary": {**values, "AP": first / 2}}


def test_one_table_side_by_side() -> None:
    table = format_table({"coarse": numbers(40.0), "refined": numbers(42.5, None), "stats": {"contours": 3}})
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == ["mask", "AP", "Boundary", "AP"]
    assert lines[1] == ["coarse", "refined", "change"] * 2
    assert lines[2] == ["AP", "40.0", "42.5", "+2.5", "20.0", "21.2", "+1.2"]
    assert lines[7] == ["APl", "90.0", "-", "-", "45.0", "47.5", "+2.5"]
    assert len(lines) == 8 and len({len(line) for line in table.splitlines()}) == 1


@pytest.mark.parametrize("results", [{"results": numbers(40.0)}, {"coarse": numbers(40.0)}])
def test_table_of_one(results: dict[str, Any]) -> None:
    lines = [line.split() for line in format_table(results).splitlines()]
    assert lines[1] == [*results, *results] and lines[2] == ["AP", "40.0", "20.0"]
    del results[next(iter(results))]["boundary"]
    assert format_table(results).splitlines()[2].split() == ["AP", "40.0"]


def test_table_of_categories() -> None:
    lines = format_categories({"segm": {"cat": 1.0, "long name": None}, "boundary": {"cat": 0.5, "long name": None}})
    assert [line.split()[-2:] for line in lines.splitlines()[1:]] == [["1.0", "0.5"], ["-", "-"]]
    odd = format_categories({"segm": {"two\nlines \x1b[31m": 1.0}})
    assert odd.splitlines()[1:] == ["two lines  [31m             1.0"]


def test_files_are_whole_or_old(tmp_path: Path) -> None:
    path = tmp_path / "new" / "numbers.json"
    save_results({"a": None, "b": 1 / 3}, path)
    assert json.loads(path.read_text()) == {"a": None, "b": 1 / 3}
    for wrong in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            save_results(wrong, path)
    assert json.loads(path.read_text())["b"] == 1 / 3
    assert os.listdir(path.parent) == ["numbers.json"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for path in (file / "out.json", Path("/proc/nowhere/out.json")):
        with pytest.raises(InputError, match="cannot be written"):
            check_writable(path)
        with pytest.raises(InputError, match="cannot be written"):
            save_results({}, path)
    with pytest.raises(InputError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(InputError, match=r"file: the command also reads or writes this file .* choose another name"):
        os.symlink(file, tmp_path / "other")
        check_writable(file, (None, tmp_path / "else", tmp_path / "other"))
    check_writable(tmp_path / "sub" / "out.json", (file,))
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]
