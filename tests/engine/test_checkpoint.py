"""Faults of files: killed in the middle, cut off, foreign, malicious, of another model."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import checkpoint
from models.loading import WEIGHTS, checkpoints, find_checkpoint, load_weights, newest_readable, read_checkpoint
from sharpcontour.anymask.refiner import WEIGHTS as PACKAGE
from sharpcontour.anymask.refiner import load_refiner
from sharpcontour.errors import InputError
from sharpcontour.io.files import remove_temporary


def _state(step: int, classes: int = 2) -> dict[str, Any]:
    categories = [{"id": 10 * i, "name": str(i)} for i in range(classes)]
    return {
        "model": {"a.weight": torch.full((3,), float(step)), "head.weight": torch.zeros(classes, 3)},
        "config": {"model": "toy", "refine": True},
        "categories": categories,
        "step": step,
    }


def _save(folder: Path, *steps: int, keep: int = 3) -> None:
    for step in steps:
        checkpoint.save(folder, _state(step), step, keep)


def test_keeps_the_newest(tmp_path: Path) -> None:
    _save(tmp_path, 5, 10, 15, 100)
    assert [path.name for path in checkpoints(tmp_path)] == [
        "step_00000100.pt",
        "step_00000015.pt",
        "step_00000010.pt",
    ]
    found = newest_readable(tmp_path)
    assert found is not None and torch.equal(found[1]["model"]["a.weight"], torch.full((3,), 100.0))
    assert list(tmp_path.glob(".*.tmp")) == []
    assert newest_readable(tmp_path / "nothing") is None


def test_damaged_later_ones_cost_no_good_one(tmp_path: Path) -> None:
    _save(tmp_path, 100, 200, 300)
    for step in (200, 300):
        (tmp_path / f"step_00000{step}.pt").write_bytes(b"damaged")
    for keep, left in ((3, [150, 100]), (2, [150, 100]), (1, [150])):
        _save(tmp_path, 150, keep=keep)
        assert checkpoints(tmp_path) == [tmp_path / f"step_00000{step}.pt" for step in left]
    found = newest_readable(tmp_path)
    assert found is not None and found[1]["step"] == 150


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_kill_in_the_middle_of_a_write_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 1, 2, keep=2)
    child = os.fork()
    if child == 0:  # the temporary file is complete, its renaming and the removal of older files are still to come
        monkeypatch.setattr(os, "replace", lambda *names: os.kill(os.getpid(), signal.SIGKILL))
        try:
            checkpoint.save(tmp_path, _state(3), 3, 2)
        finally:
            os._exit(1)  # never on into the other tests
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert [path.name for path in tmp_path.glob(".*.tmp")] == [f".step_00000003.pt.{child}.tmp"]
    found = newest_readable(tmp_path)
    assert found is not None and found[1]["step"] == 2
    assert len(checkpoints(tmp_path)) == 2
    remove_temporary(tmp_path)
    assert list(tmp_path.glob(".*.tmp")) == []


def test_cut_off_file_falls_back_with_a_warning(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2)
    newest = tmp_path / "step_00000002.pt"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"step_00000002.pt: damaged or cut off .* trying the one before"):
        found = newest_readable(tmp_path)
    assert found is not None and found[1]["step"] == 1
    for path in checkpoints(tmp_path):
        path.write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(InputError, match="none of its 2 checkpoints can be read"):
        newest_readable(tmp_path)


class _Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    path, mark = tmp_path / "step_00000001.pt", tmp_path / "was_run"
    if zipped:
        torch.save({**_state(1), "extra": _Payload(str(mark))}, path)
    else:
        path.write_bytes(pickle.dumps({"model": _Payload(str(mark))}, protocol=2))
    with pytest.raises(InputError, match="refused") as caught:
        read_checkpoint(path)
    assert not mark.exists()
    assert "\n" not in str(caught.value)
    if zipped:
        assert f"{'nt' if sys.platform == 'win32' else 'posix'}.mkdir" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 no zip", b"\x80\x02."])
def test_other_files_give_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_bare_weights_and_missing_files_are_told(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "bare.pt")
    with pytest.raises(InputError, match="lacks config, categories, step"):
        read_checkpoint(tmp_path / "bare.pt")
    with pytest.raises(InputError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "absent.pt")


def test_write_failure_keeps_earlier_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 1)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="the disk is full"):
        _save(tmp_path, 2)
    found = newest_readable(tmp_path)
    assert found is not None and found[1]["step"] == 1


def test_run_folder_stands_for_its_newest_checkpoint(tmp_path: Path) -> None:
    _save(tmp_path / "checkpoints", 1, 2)
    newest = tmp_path / "checkpoints" / "step_00000002.pt"
    assert [find_checkpoint(path)[0] for path in (tmp_path, tmp_path / "checkpoints", newest)] == [newest] * 3
    with pytest.raises(InputError, match="holds no checkpoint"):
        (tmp_path / "empty").mkdir()
        find_checkpoint(tmp_path / "empty")


def test_other_classes_or_models_are_refused(tmp_path: Path) -> None:
    state, path = _state(1, classes=80), tmp_path / "c.pt"
    with pytest.raises(InputError, match=r"80 classes, the data has 3"):
        checkpoint.check_fits(state, state["config"], _state(1, classes=3)["categories"], path)
    renumbered = [{**category, "id": category["id"] + 1} for category in state["categories"]]
    with pytest.raises(InputError, match="classes differ"):
        checkpoint.check_fits(state, state["config"], renumbered, path)
    with pytest.raises(InputError, match="refine=True, this run has refine=False"):
        checkpoint.check_fits(state, {"model": "toy", "refine": False}, state["categories"], path)
    checkpoint.check_fits(state, state["config"], state["categories"], path)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 1, bias=False)})
    with pytest.raises(InputError, match=r"a.weight has another shape \(\(3,\) there, \(1, 3\) here\)"):
        load_weights(model, {"model": {"a.weight": torch.zeros(3)}}, tmp_path)
    with pytest.raises(InputError, match=r"lacks the weight a\.weight"):
        load_weights(model, {"model": {}}, tmp_path)


def test_weights_of_another_run_where_they_match() -> None:
    model = torch.nn.ModuleDict({"host": torch.nn.Linear(3, 2), "refiner": torch.nn.Linear(1, 1)})
    kept = checkpoint.load_matching(model, {"model": {"weight": torch.ones(2, 3), "bias": torch.ones(5)}})
    assert torch.equal(model["host"].weight, torch.ones(2, 3))
    assert kept == ["host.bias", "refiner.weight", "refiner.bias"]


def test_a_training_may_begin_from_the_refiner_of_the_package(tmp_path: Path) -> None:
    refiner = load_refiner().model
    wanted = {key: value.clone() for key, value in refiner.state_dict().items()}
    for parameter in refiner.parameters():
        parameter.data.zero_()
    path, state = find_checkpoint(PACKAGE, WEIGHTS)
    assert path == PACKAGE and checkpoint.load_matching(refiner, state) == []
    assert all(torch.equal(value, wanted[key]) for key, value in refiner.state_dict().items())
    torch.save({"step": 1}, tmp_path / "odd.pt")
    with pytest.raises(InputError, match=r"odd.pt: no checkpoint of this project \(it lacks model\)"):
        find_checkpoint(tmp_path / "odd.pt", WEIGHTS)
