"""Order, sharding, resuming, worker processes."""

from __future__ import annotations

import os
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from data import DataConfig, build_dataset
from data.loader import EvaluationBatches, TrainingBatches, build_loader
from sharpcontour.errors import InputError
from tests.data.helpers import annotation, image_entry, write_set

GROUPS = np.array([0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1])


def stream(count: int, batch: int = 2, rank: int = 0, world: int = 1, start: tuple[int, int] = (0, 0)) -> list:
    return list(islice(TrainingBatches(GROUPS, batch, seed=1, rank=rank, world_size=world, start=start), count))


def test_every_image_once_in_every_epoch() -> None:
    batches = TrainingBatches(GROUPS, 2, seed=1)
    total = sum(batches.count(epoch) for epoch in range(4))
    assert total == 4 * len(GROUPS) // 2 - (4 * 4 % 2 > 0) - (4 * 9 % 2 > 0)
    keys = Counter(key for batch in stream(total) for key in batch)
    assert max(keys.values()) == 1
    assert set(keys) == {(epoch, i) for epoch in range(4) for i in range(len(GROUPS))}


def test_a_batch_has_one_orientation_on_all_ranks() -> None:
    ranks = [stream(20, 2, rank, 2) for rank in range(2)]
    for parts in zip(*ranks, strict=True):
        assert len({int(GROUPS[i]) for part in parts for _, i in part}) == 1
    first, second = ({key for batch in batches for key in batch} for batches in ranks)
    assert not first & second
    both = [a + b for a, b in zip(*ranks, strict=True)]
    assert both == stream(20, 4)  # the order does not depend on the number of processes


def test_resume_by_skipping() -> None:
    straight = stream(40)
    per_epoch = TrainingBatches(GROUPS, 2, seed=1).count(0)
    assert straight != stream(40, start=(1, 0)) and straight[per_epoch:] == stream(40 - per_epoch, start=(1, 0))
    for done in (1, 5, per_epoch, 17):
        assert straight[done:] == stream(40 - done, start=(0, done))


def test_fewer_images_than_a_batch() -> None:
    batches = list(islice(TrainingBatches(np.zeros(3, int), 8), 3))
    assert [len(batch) for batch in batches] == [8, 8, 8]
    assert Counter(i for batch in batches for _, i in batch) == {0: 8, 1: 8, 2: 8}
    assert sorted(islice(TrainingBatches(np.zeros(3, int), 8, start=(0, 2)), 1)) == batches[2:]


def test_epochs_differ() -> None:
    batches = TrainingBatches(np.zeros(64, int), 64)
    first, second = islice(batches, 2)
    assert [i for _, i in first] != [i for _, i in second]


@pytest.mark.parametrize(("length", "world"), [(10, 3), (2, 4), (7, 1)])
def test_evaluation_has_each_image_once(length: int, world: int) -> None:
    samplers = [EvaluationBatches(length, 2, rank=rank, world_size=world) for rank in range(world)]
    keys = [key for sampler in samplers for batch in sampler for key in batch]
    assert sorted(keys) == [(-1, i) for i in range(length)]
    assert all(len(list(sampler)) == len(sampler) for sampler in samplers)


def test_worker_processes_change_nothing() -> None:
    data = build_dataset(DataConfig(shapes_size=96, train_images_count=20), "train", prepare=add_noise)
    results = []
    for workers in (0, 1, 2):
        torch.manual_seed(0)
        loader = build_loader(data, 3, training=True, seed=5, workers=workers)
        results.append((list(islice(loader, 5)), torch.rand(1)))
    for batches, state in results[1:]:
        assert state == results[0][1]  # nor do they touch the global random numbers
        for (images, targets), (expected, expected_targets) in zip(batches, results[0][0], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(images, expected, strict=True))
            for a, b in zip(targets, expected_targets, strict=True):
                assert a["image_id"] == b["image_id"] and torch.equal(a["noise"], b["noise"])
                assert torch.equal(a["boxes"], b["boxes"]) and torch.equal(a["masks"].pixels, b["masks"].pixels)


def add_noise(target: dict, rng: np.random.Generator) -> dict:
    return {**target, "noise": torch.from_numpy(rng.random(3))}


def test_resumed_loader_equals_the_straight_one() -> None:
    data = build_dataset(DataConfig(shapes_size=64, train_images_count=7), "train")
    straight = list(islice(build_loader(data, 2, training=True), 9))
    resumed = list(islice(build_loader(data, 2, training=True, start=(0, 6)), 3))
    for (a, _), (b, _) in zip(straight[6:], resumed, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_evaluation_loader() -> None:
    data = build_dataset(DataConfig(shapes_size=64, val_images_count=5), "val")
    loader = build_loader(data, 2, training=False, workers=1)
    assert len(loader) == 3
    for _ in range(2):
        ids = [[target["image_id"] for target in targets] for _, targets in loader]
        assert ids == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_workers_stay_one_line(tmp_path: Path, workers: int) -> None:
    data = build_dataset(write_set(tmp_path, [annotation(1)], [image_entry(1), image_entry(2)]), "train")
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(InputError) as error:
        next(iter(build_loader(data, 1, training=True, workers=workers)))
    assert "2.png" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_leaves_out_images_that_cannot_be_used(tmp_path: Path, workers: int) -> None:
    data = build_dataset(write_set(tmp_path, [annotation(1)], [image_entry(k) for k in range(1, 5)]), "val")
    (tmp_path / "2.png").unlink()
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:40])
    loader = build_loader(data, 1, training=False, workers=workers)
    for _ in range(2):
        assert [target["image_id"] for _, targets in loader for target in targets] == [1, 3]
        assert [line.partition(":")[0] for line in loader.left_out] == [str(tmp_path / f"{k}.png") for k in (2, 4)]


class Niceness:
    """A data set that tells how far the process that reads it stands back."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: tuple[int, int]) -> dict[str, object]:
        return {"image": os.nice(0), "target": {}}


@pytest.mark.skipif(not hasattr(os, "nice"), reason="Windows")
@pytest.mark.filterwarnings("ignore:'pin_memory'")
@pytest.mark.parametrize("cuda", [True, False])
def test_workers_stand_back_where_the_model_needs_the_same_cores(cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    loader = build_loader(Niceness(), 1, training=False, workers=1)
    monkeypatch.undo()
    [(found, _)] = loader
    assert found == ([os.nice(0)] if cuda else [19])
