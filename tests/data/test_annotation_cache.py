"""The cache of a large annotation file: the same data set with and without it, and never a wrong one."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import shutil
import time
import warnings
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data import DataConfig, annotation_cache
from data.annotation_cache import ENDING, packed_annotations
from data.coco import CocoDataset
from data.coco_split import CocoSplit
from data.packed import OBJECT_ARRAYS
from data.packing import PackedAnnotations, pack_annotations
from sharpcontour.errors import InputError
from sharpcontour.io import array_file, files, long_json
from sharpcontour.masks.packed import PackedMasks
from tests.data.helpers import SQUARE, annotation, image_entry, runs, write_set
from tests.data.test_coco import BROKEN

# Of what the set below holds when it is packed. Where a change alters it, FORMAT must be raised with it.
FORMAT, PACKED = 2, "8ae87d89d072efa5"


def odd_set(folder: Path) -> DataConfig:
    """Objects in every form and with every fault, in no order, on images of several sizes."""
    mask = np.zeros((48, 64), np.uint8)
    mask[8:28, 10:30] = 1
    mask[14:20, 15:22] = 0
    forms: list[Any] = [[SQUARE], {"size": [48, 64], "counts": runs(mask)}, [SQUARE, [40.0, 30, 50, 30, 50, 40]]]
    changes = [{"segmentation": form, "category_id": c} for form in forms for c in (2, 9, 90)]
    changes += [change for change, *_ in BROKEN] + [
        {"iscrowd": 1},
        {"ignore": 1},
        {"id": "7"},
        {"bbox": [10, 8.5, 20, 90]},
    ]
    annotations = [annotation(k + 1, **{"image_id": (5, 2, 3)[k % 3], **one}) for k, one in enumerate([{}, *changes])]
    images = [image_entry(k) for k in (5, 2, 4, 3, 2)] + [image_entry(1, 30, 70)]
    images[2]["file_name"] = "\u20ac.png"
    config = write_set(folder, annotations, images)
    contents = json.loads(Path(config.train_json).read_text())
    contents["images"][3]["width"] = "64"
    Path(config.train_json).write_text(json.dumps(contents))
    return config


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """Of a data set whose annotations count as a large file, read in many pieces."""
    monkeypatch.setattr(long_json, "LARGE", 0)
    monkeypatch.setattr(long_json, "PIECE", 500)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(annotation_cache, "WAIT", 20.0)
    (tmp_path / "set").mkdir()
    return odd_set(tmp_path / "set")


def parts(packed: PackedAnnotations) -> dict[str, Any]:
    """Everything in it, as values that can be compared."""
    arrays = {name: getattr(packed.objects, name) for name in OBJECT_ARRAYS}
    arrays |= {name: getattr(packed, name) for name in ("image_ids", "sizes", "names")}
    values = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}
    problems = list(packed.problems.counts.items()), list(packed.problems.first.items())
    return {**values, "rest": (packed.categories, problems, packed.crowds, packed.ignored)}


def whole(path: str) -> dict[str, Any]:
    """The parts of a file that was read as a whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_json, "LARGE", 2**40)
        return parts(pack_annotations(Path(path)))


def plain(value: Any) -> Any:
    """A sample as values that can be compared."""
    if isinstance(value, (dict, PackedMasks)):
        return {key: plain(one) for key, one in (value if isinstance(value, dict) else vars(value)).items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return (str(value.dtype), value.tolist()) if isinstance(value, (np.ndarray, torch.Tensor)) else value


def cache_of(config: DataConfig) -> Path:
    return Path(config.train_json + ENDING)


def test_the_first_and_the_second_start_give_what_the_whole_file_gives(
    config: DataConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(config.train_json)
    before = set(path.parent.iterdir())
    wanted = whole(config.train_json)
    assert parts(packed_annotations(path)) == wanted
    told = capsys.readouterr().err
    assert f"{cache_of(config)}: holds what was read from annotations.json" in told and told.count("\n") == 1
    assert set(path.parent.iterdir()) - before == {cache_of(config)}
    monkeypatch.setattr(annotation_cache, "pack_annotations", lambda _: pytest.fail("read again"))
    again = packed_annotations(path)
    assert parts(again) == wanted and again.objects.file is not None
    assert not any(getattr(again.objects, name).flags.writeable for name in OBJECT_ARRAYS)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("split", ["train", "val"])
def test_samples_are_the_same(config: DataConfig, split: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_json, "LARGE", 2**40)
        wanted = CocoDataset(config, split)
    CocoDataset(config, split)
    found = CocoDataset(config, split)
    assert found.objects.file is not None and wanted.objects.file is None
    assert found.report() == wanted.report() and found.category_ids == wanted.category_ids and len(found) == 5
    assert found.ground_truth() == wanted.ground_truth()
    epoch = 0 if split == "train" else -1
    for index in range(len(found)):
        if found.path(index).is_file():
            assert plain(found[epoch, index]) == plain(wanted[epoch, index])


def test_what_is_packed_changes_only_with_the_format(config: DataConfig) -> None:
    digest = blake2b(repr(sorted(whole(config.train_json).items())).encode(), digest_size=8).hexdigest()
    assert (annotation_cache.FORMAT, digest) == (FORMAT, PACKED), "raise FORMAT in data/annotation_cache.py"


def test_annotations_that_have_changed_are_read_again(config: DataConfig) -> None:
    path = Path(config.train_json)
    packed_annotations(path)
    stat, text = path.stat(), path.read_text()
    path.write_text(text.replace("[10.0, 8.0, 20.0, 20.0]", "[11.0, 8.0, 20.0, 20.0]"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size and path.stat().st_mtime_ns == stat.st_mtime_ns
    with pytest.warns(UserWarning, match="made anew, since the annotations have changed") as told:
        found = parts(packed_annotations(path))
    assert len(told) == 1 and found == whole(config.train_json)
    os.utime(path, ns=(0, 0))
    with pytest.warns(UserWarning, match="annotations have changed"):
        packed_annotations(path)
    path.write_text(text[:-1] + " }")
    with pytest.warns(UserWarning, match="annotations have changed"):
        packed_annotations(path)


def test_a_damaged_cache_is_made_anew(config: DataConfig) -> None:
    path, cache = Path(config.train_json), cache_of(config)
    packed_annotations(path)
    wanted, good = whole(config.train_json), cache.read_bytes()
    places = [0, 63, 64, 65, 70, good.index(b'"arrays"') + 20, *range(128, len(good), len(good) // 6), len(good) - 1]
    damaged = [good[:k] + bytes([good[k] ^ 1]) + good[k + 1 :] for k in places]
    damaged += [good[:k] for k in (0, 10, 64, 65, 200, len(good) // 2, len(good) - 1)]
    damaged += [good + b"\0", b"PK" * 500, b"[" * 5000, b"\n" * 100]
    for data in damaged:
        cache.write_bytes(data)
        with pytest.warns(UserWarning, match="made anew, since (it is damaged|it is of|the annotations)") as told:
            found = parts(packed_annotations(path))
        assert len(told) == 1 and found == wanted
        assert cache.read_bytes() == good


def test_the_cache_of_another_file_or_version_is_made_anew(
    config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    other = write_set(tmp_path / "other", [annotation(1)])
    packed_annotations(Path(other.train_json))
    shutil.copy(cache_of(other), cache_of(config))
    with pytest.warns(UserWarning, match="annotations have changed"):
        assert parts(packed_annotations(Path(config.train_json))) == whole(config.train_json)
    monkeypatch.setattr(annotation_cache, "FORMAT", FORMAT + 1)
    with pytest.warns(UserWarning, match="made anew, since it is of another version"):
        packed_annotations(Path(config.train_json))


def test_where_the_folder_cannot_be_written_the_cache_is_in_the_home(config: DataConfig, tmp_path: Path) -> None:
    path = Path(config.train_json)
    cache_of(config).with_name(cache_of(config).name + ".lock").mkdir()  # refused to root too
    packed_annotations(path)
    assert packed_annotations(path).objects.file is not None and not cache_of(config).exists()
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").write_text("")  # a home that is no folder
    with pytest.warns(UserWarning, match=r"read without a cache: .*cannot be written .*; .*cannot be written") as told:
        packed = packed_annotations(path)
    assert len(told) == 1 and parts(packed) == whole(config.train_json) and packed.objects.file is None


def test_a_full_disk_ends_nothing(config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "replace", fail)
    before = set(Path(config.train_json).parent.iterdir())
    with pytest.warns(UserWarning, match="read without a cache: .*the disk is full") as told:
        packed = packed_annotations(Path(config.train_json))
    assert len(told) == 1 and parts(packed) == whole(config.train_json)
    assert set(Path(config.train_json).parent.iterdir()) == before


def test_what_a_killed_process_left_is_removed(config: DataConfig) -> None:
    cache = cache_of(config)
    stray, lock = cache.with_name(f".{cache.name}.123.tmp"), cache.with_name(cache.name + ".lock")
    for path in (stray, lock):
        path.write_text("")
    packed_annotations(Path(config.train_json))
    assert cache.exists() and not stray.exists() and not lock.exists()


def test_annotations_that_change_while_they_are_read(config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(path: Path) -> PackedAnnotations:
        packed = pack_annotations(path)
        os.utime(path, ns=(0, 0))
        return packed

    monkeypatch.setattr(annotation_cache, "pack_annotations", change)
    with pytest.raises(InputError, match="was changed while it was read; start again"):
        packed_annotations(Path(config.train_json))
    assert not cache_of(config).exists()


def _build(path: Path, log: Path, barrier: Any, results: Any) -> None:
    def counted(path: Path) -> PackedAnnotations:
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        return pack_annotations(path)

    annotation_cache.pack_annotations = counted
    barrier.wait(20)
    packed = packed_annotations(path)
    results.put((blake2b(repr(parts(packed)).encode()).hexdigest(), packed.objects.file is not None))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_of_many_processes_one_reads(config: DataConfig, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    barrier, results, log = fork.Barrier(3), fork.Queue(), tmp_path / "log"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads
        jobs = [
            fork.Process(target=_build, args=(Path(config.train_json), log, barrier, results), daemon=True)
            for _ in range(3)
        ]
        for job in jobs:
            job.start()
    found = [results.get(timeout=60) for _ in jobs]
    for job in jobs:
        job.join(20)
    wanted = blake2b(repr(whole(config.train_json)).encode()).hexdigest()
    assert found == [(wanted, True)] * 3 and len(log.read_text().splitlines()) == 1
    assert not list(tmp_path.rglob("*.lock"))


def test_a_process_that_waits_too_long_reads_itself(
    config: DataConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sharpcontour.io.lock.try_lock", lambda _: False)
    monkeypatch.setattr(annotation_cache, "WAIT", 0.1)
    with pytest.warns(UserWarning, match="read without a cache: another process has been reading it for"):
        packed = packed_annotations(Path(config.train_json))
    assert parts(packed) == whole(config.train_json)
    assert "waiting for the process that reads" in capsys.readouterr().err


def test_a_spawned_process_maps_the_cache_too(config: DataConfig) -> None:
    packed_annotations(Path(config.train_json))
    data = CocoSplit(config, "train")
    sent = pickle.dumps(data.objects)
    assert len(sent) < 1000
    received = pickle.loads(sent)
    assert all(np.array_equal(getattr(received, name), getattr(data.objects, name)) for name in OBJECT_ARRAYS)
    Path(config.train_json).write_text(json.dumps(json.loads(Path(config.train_json).read_text())) + " ")
    with pytest.warns(UserWarning, match="made anew"):
        packed_annotations(Path(config.train_json))
    changed = array_file.checked(cache_of(config))
    assert changed.digest != data.objects.file.digest  # type: ignore[union-attr]
    with pytest.raises(InputError, match="was written anew while a run uses it"):
        pickle.loads(sent)


def test_small_files_leave_nothing_behind(config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_json, "LARGE", 32 * 2**20)
    before = set(Path(config.train_json).parent.iterdir())
    assert CocoSplit(config, "train").objects.file is None
    assert set(Path(config.train_json).parent.iterdir()) == before


def test_errors_of_large_files_are_those_of_small_ones(config: DataConfig) -> None:
    path = Path(config.train_json)
    text = path.read_text()
    for broken in (
        text[:-200],
        text[:2000] + "," + text[2000:],
        text.replace('"width"', '"wide"'),
        text.replace('"categories"', '"classes"'),
        "[]",
    ):
        path.write_text(broken)
        with pytest.raises(InputError) as wanted:
            whole(config.train_json)
        with pytest.raises(InputError) as found:
            packed_annotations(path)
        assert str(found.value) == str(wanted.value) and not list(path.parent.glob(f"*{ENDING}*"))
