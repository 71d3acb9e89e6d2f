"""Long commands lose nothing: what is done stays done, and one bad image costs no other."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import eval.refinement
from data.journal import Journal
from eval.checks import GroundTruth
from eval.refined_results import RefinedResults
from models.predictor import Predictor
from sharpcontour.errors import InputError
from sharpcontour.io.files import read_json
from sharpcontour.io.images import UnreadableError
from tests.commands import run_script
from tests.models.test_models import checkpoint_of

SQUARE = [[10.0, 10, 60, 10, 60, 60, 10, 60]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images, three entries on each, and a refined model."""
    checkpoint_of(tmp_path / "c.pt", True)
    (tmp_path / "img").mkdir()
    entries = []
    for k in range(1, 5):
        cv2.imwrite(str(tmp_path / "img" / f"{k}.png"), np.full((80, 90, 3), 40 * k, np.uint8))
        entries += [{"image_id": k, "category_id": 7, "score": 0.9, "segmentation": SQUARE} for _ in range(3)]
    (tmp_path / "r.json").write_text(json.dumps(entries))
    return tmp_path


def refine(folder: Path, *arguments: str) -> Any:
    command = ["--checkpoint", "c.pt", "--results", "r.json", "--images", "img", "--out", "out.json", "--device", "cpu"]
    return run_script("refine.py", *command, *arguments, cwd=folder)


def predict(folder: Path) -> Any:
    command = ["--checkpoint", "c.pt", "--out", "found", "--device", "cpu", "--score-threshold", "1"]  # draws little
    return run_script("predict.py", *command, "img", cwd=folder)


def interrupted(monkeypatch: pytest.MonkeyPatch, method: str, after: int) -> list[int]:
    """Let a method of the predictor work so often, then be interrupted; the list counts its calls."""
    original, calls = getattr(Predictor, method), []

    def call(self: Predictor, *arguments: Any, **more: Any) -> Any:
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        return original(self, *arguments, **more)

    monkeypatch.setattr(Predictor, method, call)
    return calls


def test_an_interrupted_refinement_goes_on(folder: Path) -> None:
    whole = refine(folder)
    assert whole.returncode == 0, whole.stderr
    expected = read_json(folder / "out.json")
    (folder / "out.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, "refine", 2)
        stopped = refine(folder)
    assert stopped.returncode == 130 and not (folder / "out.json").exists()
    assert "out.json.part; the same command goes on from there" in stopped.stdout
    with pytest.MonkeyPatch.context() as patch:
        calls = interrupted(patch, "refine", 9)
        again = refine(folder)
    assert again.returncode == 0 and len(calls) == 2
    assert read_json(folder / "out.json") == expected and not (folder / "out.json.part").exists()
    last = [line for line in whole.stdout.splitlines() if "masks: " in line]
    assert last == [line for line in again.stdout.splitlines() if "masks: " in line]


def test_a_resumed_run_gives_a_complete_page(folder: Path) -> None:
    assert refine(folder, "--html", "whole.html").returncode == 0
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, "refine", 2)
        stopped = refine(folder, "--html", "page.html")
    assert stopped.returncode == 130 and not (folder / "page.html").exists()
    with pytest.MonkeyPatch.context() as patch:
        calls = interrupted(patch, "refine", 9)
        assert refine(folder, "--html", "page.html").returncode == 0 and len(calls) == 2
    assert (folder / "page.html").read_bytes() == (folder / "whole.html").read_bytes()
    (folder / "page.html").unlink()
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, "refine", 3)
        refine(folder)
    with pytest.MonkeyPatch.context() as patch:
        calls = interrupted(patch, "refine", 9)
        again = refine(folder, "--html", "page.html")
    assert again.returncode == 0 and len(calls) == 4
    assert "3 images that were done are done again, for --html" in again.stdout
    assert (folder / "page.html").read_bytes() == (folder / "whole.html").read_bytes()


def test_a_journal_of_other_work_is_not_gone_on_with(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, "refine", 2)
        refine(folder)
    entries = json.loads((folder / "r.json").read_text())
    (folder / "r.json").write_text(json.dumps(entries[:6]))
    with pytest.MonkeyPatch.context() as patch:
        calls = interrupted(patch, "refine", 9)
        assert refine(folder).returncode == 0
    assert len(calls) == 2  # both images anew


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "r.json", {"a": 1})
    journal.add("one", {"x": 1})
    journal.close(finished=False)
    path = tmp_path / "r.json.part"
    path.write_text(path.read_text() + '{"name": "two", "rec')
    again = Journal(tmp_path / "r.json", {"a": 1})
    assert again.done == {"one": {"x": 1}}
    again.add("three", {"x": 3})
    again.close(finished=False)
    again = Journal(tmp_path / "r.json", {"a": 1})
    assert sorted(again.done) == ["one", "three"]
    again.close(finished=False)
    before = path.read_text()
    assert Journal(tmp_path / "r.json", {"a": 2}).done == {}
    assert Path(f"{path}.1").read_text() == before  # of other work: kept


def test_an_image_that_fails_costs_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "img" / "2.png").write_bytes((folder / "img" / "2.png").read_bytes()[:60])
    original = Predictor.refine

    def fails(self: Predictor, image: np.ndarray, *arguments: Any, **more: Any) -> Any:
        if image[0, 0, 0] == 120:
            raise MemoryError("too much")
        return original(self, image, *arguments, **more)

    monkeypatch.setattr(Predictor, "refine", fails)
    done = refine(folder)
    assert done.returncode == 1 and "1 image failed; the same command tries what failed again" in done.stdout
    assert "3 x image that cannot be read, 2.png (first: entry 3)" in done.stdout
    assert "3 x image that failed, 3.png (MemoryError: too much) (first: entry 6)" in done.stdout
    assert [entry["segmentation"] for entry in read_json(folder / "out.json")[3:9]] == [SQUARE] * 6
    monkeypatch.undo()
    calls = interrupted(monkeypatch, "refine", 9)
    assert refine(folder).returncode == 0 and len(calls) == 1 and not (folder / "out.json.part").exists()


def test_an_interrupted_prediction_goes_on(folder: Path) -> None:
    (folder / "img" / "2.png").write_bytes((folder / "img" / "2.png").read_bytes()[:60])
    whole = predict(folder)
    assert whole.returncode == 0, whole.stderr
    assert "3 images" in whole.stdout and "1 images left out: img/2.png" in whole.stdout
    expected = [read_json(folder / "found" / name) for name in ("results.json", "polygons.json")]
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, "predict", 2)
        assert predict(folder).returncode == 130
    with pytest.MonkeyPatch.context() as patch:
        calls = interrupted(patch, "predict", 9)
        assert predict(folder).returncode == 0 and len(calls) == 1
    assert [read_json(folder / "found" / name) for name in ("results.json", "polygons.json")] == expected
    for path in (folder / "img").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    assert predict(folder).returncode == 2


def test_an_image_that_fails_is_predicted_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predict(folder)
    assert whole.returncode == 0, whole.stderr
    expected = [read_json(folder / "found" / name) for name in ("results.json", "polygons.json")]
    (folder / "img" / "5.png").write_bytes(b"")
    original = Predictor.predict

    def fails(self: Predictor, image: np.ndarray, **more: Any) -> Any:
        if image[0, 0, 0] == 120:
            raise MemoryError("too much")
        return original(self, image, **more)

    monkeypatch.setattr(Predictor, "predict", fails)
    done = predict(folder)
    assert done.returncode == 1 and "1 image failed; the same command tries what failed again" in done.stdout
    assert "2 images left out: img/3.png: MemoryError: too much; img/5.png: the file is empty" in done.stdout
    assert {entry["image_id"] for entry in read_json(folder / "found" / "results.json")} <= {1, 2, 4}
    monkeypatch.undo()
    calls = interrupted(monkeypatch, "predict", 9)
    assert predict(folder).returncode == 0 and len(calls) == 1
    assert [read_json(folder / "found" / name) for name in ("results.json", "polygons.json")] == expected


def test_a_replaced_image_is_predicted_again(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, "predict", 2)
        assert predict(folder).returncode == 130
    cv2.imwrite(str(folder / "img" / "1.png"), np.full((70, 90, 3), 9, np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        calls = interrupted(patch, "predict", 9)
        assert predict(folder).returncode == 0 and len(calls) == 3
    assert [one["height"] for one in read_json(folder / "found" / "polygons.json")] == [70, 80, 80, 80]


def test_a_full_disk_is_no_fault_of_an_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the command at once: every other image would meet it too."""

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    done = predict(folder)
    assert done.returncode == 2 and "1_compare.png: the disk is full" in done.stderr and done.stderr.count("\n") == 1
    assert "results.json.part; the same command goes on from there" in done.stdout


def test_a_failed_image_keeps_no_memory(tmp_path: Path) -> None:
    class Features:
        pass

    alive: list[weakref.ref[Features]] = []

    def work(kind: type[Exception]) -> None:
        features = Features()
        alive.append(weakref.ref(features))
        try:
            raise MemoryError("too much")
        except MemoryError as error:
            raise kind("a.png") from error

    with Journal(tmp_path / "out.json", {}) as journal:
        errors = [journal.attempt("1", partial(work, kind)) for kind in (RuntimeError, UnreadableError)]
        assert [str(error) for error in errors] == ["a.png"] * 2 and journal.failed == 1
        assert [one() for one in alive] == [None, None]
        journal.close(finished=True)


def test_an_image_is_ended_while_the_next_one_begins(tmp_path: Path) -> None:
    begun = [threading.Event() for _ in range(5)]
    told: list[str | None] = []

    def begin(k: int) -> Callable[[], int]:
        begun[k].set()
        assert len(told) == max(k - 1, 0)  # no more than two images are held
        if k == 2:
            raise UnreadableError("2.png: cannot be read")
        if k == 4:
            raise KeyboardInterrupt
        return partial(end, k)

    def end(k: int) -> int:
        assert begun[k + 1].wait(60), "the next image waits for this one"
        if k == 1:
            raise RuntimeError("out of memory")
        return 10 * k

    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "out.json", {}) as journal:
        for error in journal.attempts((str(k), partial(begin, k)) for k in range(5)):
            told.append(error and str(error))
    assert told == [None, "out of memory", "2.png: cannot be read"] and journal.failed == 1
    # The interruption came with the last image; the one before it was ended and written down.
    assert Journal(tmp_path / "out.json", {}).done == {"0": 0, "3": 30}


@pytest.mark.parametrize("when", ["begin", "end"])
def test_an_interruption_that_a_library_swallows_is_one(tmp_path: Path, when: str) -> None:
    def swallow() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        except KeyboardInterrupt:
            raise TypeError("__array__() got an unexpected keyword argument 'copy'") from None

    def begin(k: int) -> Callable[[], int]:
        if k == 1 and when == "begin":
            swallow()
        return lambda: k

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "out.json", {}) as journal:
        if when == "begin":
            list(journal.attempts((str(k), partial(begin, k)) for k in range(3)))
        else:
            assert journal.attempt("0", lambda: 0) is None
            journal.attempt("1", swallow)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert journal.failed == 0 and Journal(tmp_path / "out.json", {}).done == {"0": 0}


def test_counts_of_a_failed_image_are_of_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = json.loads((folder / "r.json").read_text())
    (folder / "r.json").write_text(json.dumps([entries[0], entries[3]]))
    original = Predictor.refine

    def fails(self: Predictor, image: np.ndarray, *arguments: Any, **more: Any) -> Any:
        if image[0, 0, 0] == 40:
            self.model.statistics.restored += 100  # type: ignore[operator, union-attr]
            raise MemoryError("too much")
        return original(self, image, *arguments, **more)

    monkeypatch.setattr(Predictor, "refine", fails)
    done = refine(folder)
    assert done.returncode == 1 and "1 image failed" in done.stdout
    counts = re.search(r"(\d+) would have got worse", done.stdout)
    assert counts is not None and int(counts[1]) <= 1


def test_a_newer_checkpoint_of_a_run_is_other_work(folder: Path) -> None:
    inside = folder / "run" / "checkpoints"
    inside.mkdir(parents=True)
    (folder / "c.pt").rename(inside / "step_00000001.pt")
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, "refine", 2)
        assert refine(folder, "--checkpoint", "run").returncode == 130
    (inside / "step_00000002.pt").write_bytes((inside / "step_00000001.pt").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        calls = interrupted(patch, "refine", 9)
        done = refine(folder, "--checkpoint", "run")
    assert done.returncode == 0 and len(calls) == 4 and "out.json.part is of other work" in done.stdout


def test_entries_of_one_image_come_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = eval.refinement.Changes.add

    def add(self: Any, found: Any) -> Any:
        sizes.append(len(found))
        return original(self, found)

    monkeypatch.setattr(eval.refinement.Changes, "add", add)
    entry = {"image_id": 1, "category_id": 7, "score": 0.9, "segmentation": SQUARE}
    (folder / "r.json").write_text(json.dumps([entry] * 1100))
    done = refine(folder)
    assert done.returncode == 0 and sizes == [1000, 100] and "1100 masks: " in done.stdout
    found = [one["segmentation"] for one in read_json(folder / "out.json")]
    assert len(found) == 1100 and found[0] == found[1000] == found[1099]


def test_a_score_that_no_float_holds_costs_no_image(folder: Path) -> None:
    entries = json.loads((folder / "r.json").read_text())
    entries[4]["score"] = 10**400
    (folder / "r.json").write_text(json.dumps(entries))
    done = refine(folder)
    assert done.returncode == 0 and read_json(folder / "out.json")[4]["score"] == 10**400, done.stdout


def test_a_link_that_leads_to_itself_is_no_crash(folder: Path) -> None:
    (folder / "img" / "loop.png").symlink_to("loop.png")
    (folder / "out.json").symlink_to("out.json")
    done = refine(folder)
    assert done.returncode == 0 and len(read_json(folder / "out.json")) == 12, done.stderr
    done = predict(folder)
    assert done.returncode == 0 and "4 images" in done.stdout, done.stderr


@pytest.mark.parametrize("box", [[0, 0, 1e308, 1e308], [10**400, 0, 5, 5], [float("1e300"), 1, 2, 3]])
def test_a_box_that_no_image_holds_is_counted(box: list[Any], folder: Path) -> None:
    entries = json.loads((folder / "r.json").read_text())
    entries[4]["bbox"] = box
    (folder / "r.json").write_text(json.dumps(entries))
    done = refine(folder)
    assert done.returncode == 0, done.stderr
    assert "1 x box that means nothing, its mask's taken (first: entry 4)" in done.stdout


def test_huge_numbers_and_deep_nesting_are_one_line(folder: Path) -> None:
    huge = [[10**400, 10, 60, 10, 60, 60]]
    entries = [{"image_id": 1, "category_id": 7, "score": 0.9, "segmentation": huge}]
    (folder / "r.json").write_text(json.dumps(entries))
    done = refine(folder)
    assert done.returncode == 0 and "1 x polygons without points, or with broken ones" in done.stdout
    (folder / "r.json").write_text("[" * 100_000 + "]" * 100_000)
    done = refine(folder)
    assert done.returncode == 2 and "r.json: not valid JSON, its brackets are nested too deeply" in done.stderr
    truth = {"images": [{"id": 1, "height": 9, "width": 9}], "categories": [{"id": 1}], "annotations": []}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "area": 10**400, "segmentation": SQUARE}
    with pytest.raises(InputError, match="area"):
        GroundTruth({**truth, "annotations": [annotation]})


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    done = run_script("prepare_data.py", "shapes", "--root", "set", cwd=tmp_path)
    assert done.returncode == 2 and "Read-only file system" in done.stderr and done.stderr.count("\n") == 1


def test_broken_validation_annotations_name_their_file(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    image = {"id": 1, "file_name": "a.png", "width": 64, "height": 64}
    good = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 30, 30], "area": 9, "segmentation": SQUARE}
    text = {"images": [image], "annotations": [good], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "t.json").write_text(json.dumps(text))
    (tmp_path / "v.json").write_text(json.dumps({**text, "annotations": [{**good, "area": -1}]}))
    files = ["--train-json", "t.json", "--val-json", "v.json", "--train-images", ".", "--val-images", "."]
    done = run_script("train.py", "--recipe", "small", *files, "--out", "run", cwd=tmp_path)
    assert done.returncode == 2 and "v.json: 1 broken annotations" in done.stderr


def test_what_the_reader_interrupts_is_written_down(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out.json", {})
    works = ((str(k), lambda k=k: lambda: {"number": k}) for k in range(4))
    attempts = journal.attempts(works)
    assert next(attempts) is None
    with pytest.raises(KeyboardInterrupt):
        attempts.throw(KeyboardInterrupt)
    assert sorted(journal.done) == ["0", "1"]
    journal.close(finished=False)


def test_what_is_interrupted_between_two_images_is_written_down(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RefinedResults, "_take", interrupt)  # while the second image is on its way
        stopped = refine(folder)
    assert stopped.returncode == 130 and "Traceback" not in stopped.stderr and "ignored" not in stopped.stderr
    assert len((folder / "out.json.part").read_text().splitlines()) == 3  # what it is of, and two images
    done = refine(folder)
    assert done.returncode == 0 and "4 images, " in done.stdout
    assert not (folder / "out.json.part").exists()
