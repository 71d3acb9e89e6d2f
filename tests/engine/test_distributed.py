"""Two processes on one machine (gloo): they agree on skipping, stopping, leaving and scores; nobody waits."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import nn

from engine import distributed
from engine.logging import RunLog
from engine.trainer import Batches
from engine.update import Updater
from eval.inference import evaluate_model
from eval.processes import broadcast_object, gather_objects
from models.loading import newest_readable
from sharpcontour.errors import InputError
from sharpcontour.io.device import choose_device, to_device
from sharpcontour.io.signals import StopSignals
from tests.engine import toy
from tests.eval.test_inference import IMAGES, Data, Model
from tests.eval.test_inference import run as evaluate

EMPTY = toy.ToyData(empty=(2, 3, 6, 7, 10, 11))  # in order, rank 1 gets these of every batch of two per process


def _scenarios(rank: int, port: int, folder: Path) -> None:
    """Everything that needs two processes, in one go: starting them is what takes time."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    world = distributed.start("cpu")
    result = {
        "empty": _empty(world, folder / "empty"),
        "accumulated": _accumulated(world, folder / "accumulated"),
        "bad": _bad(world, folder / "bad"),
        "evaluated": _evaluated(world),
        "stop": _three_in_a_row(world, folder / "stop"),
        "statistics": _statistics(world, folder / "statistics"),
        "signal": _signal(world, folder / "signal"),
        "gathered": gather_objects(rank),
        "replaced": _replaced(world, folder / "replaced"),
        "broadcast": broadcast_object(f"from {rank}"),
    }
    distributed.barrier()
    torch.save(result, folder / f"rank{rank}.pt")
    distributed.stop()
    gc.collect()  # gloo's threads must not outlive the interpreter


def _empty(world: distributed.World, folder: Path) -> dict[str, torch.Tensor]:
    one = toy.trainer(folder, toy.config(iterations=3), world, model=_plain_model(), feed=_in_order(EMPTY, world))
    assert one.fit()
    return one.model.state_dict()


def _accumulated(world: distributed.World, folder: Path) -> dict[str, torch.Tensor]:
    one = toy.trainer(folder, toy.config(iterations=3, accumulation=2), world, model=_plain_model())
    assert one.fit()
    return one.model.state_dict()


def _replaced(world: distributed.World, folder: Path) -> int:
    one = toy.trainer(folder, toy.config(iterations=1), world)
    one._replaced = lambda: [4, world.rank]  # an image that both met, and one each
    return one.replaced()


def _plain_model() -> toy.ToyModel:
    torch.manual_seed(0)
    return toy.ToyModel(dropout=0.0)


def _statistics(world: distributed.World, folder: Path) -> list[torch.Tensor]:
    """The running means that an evaluation finds, and those that it found before they were shared."""
    model = toy.ToyModel(batch_norm=True)
    found: list[torch.Tensor] = []

    def evaluate(step: int) -> dict[str, float]:
        found.append(model.body[1].running_mean.clone())
        return {}

    one = toy.trainer(folder, toy.config(iterations=2), world, model=model, evaluate=evaluate)
    one._train_until(2, one._batches(0), StopSignals(), RunLog(folder, 0, world.main))
    found.append(model.body[1].running_mean.clone())
    assert one.fit()
    return found


def _in_order(data: toy.ToyData, world: distributed.World) -> Any:
    return toy.batches(data, 2, world.rank, world.size, shuffle=False)


def _bad(world: distributed.World, folder: Path) -> dict[str, Any]:
    data = toy.ToyData(poisoned=(6,))  # second update, rank 1
    one = toy.trainer(folder, toy.config(iterations=3, log_period=1), world, feed=_in_order(data, world))
    assert one.fit()
    return {"skipped": one.skipped, "model": one.model.state_dict()}


class _WithParameter(Model):
    """Distributed training wants one."""

    def __init__(self) -> None:
        super().__init__(refine=True)
        self.weight = nn.Parameter(torch.zeros(1))


class _BrokenData(Data):
    def ground_truth(self) -> dict[str, Any]:
        data = super().ground_truth()
        return data | {"images": data["images"][:3], "annotations": []}


def _evaluated(world: distributed.World) -> dict[str, str]:
    keys = [[0, 2, 4, 6], [1, 3, 5, 0]][world.rank]  # image 0 fills the second share up
    model, data = nn.parallel.DistributedDataParallel(_WithParameter()), _BrokenData()
    result = evaluate(model, keys)
    with pytest.raises(InputError) as told:
        evaluate_model(model, data, data.batches(keys), world.device, progress=False)
    return {"result": json.dumps(result), "error": str(told.value)}


def _three_in_a_row(world: distributed.World, folder: Path) -> str:
    data = toy.ToyData(poisoned=(2, 7, 10))  # always on rank 1
    one = toy.trainer(folder, toy.config(), world, feed=_in_order(data, world))
    with pytest.raises(InputError) as caught:
        one.fit()
    assert all(value.isfinite().all() for value in one.model.state_dict().values())
    return str(caught.value)


def _signal(world: distributed.World, folder: Path) -> int:
    def feed(n: int) -> Batches:
        for index, batch in enumerate(_in_order(toy.ToyData(), world)(n)):
            if world.rank == 1 and index == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    one = toy.trainer(folder, toy.config(), world, feed=feed)
    assert not one.fit()
    return one.step


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.start_processes(_scenarios, (port, folder), nprocs=2, join=False, start_method="spawn")
    assert context is not None
    try:
        deadline = time.monotonic() + 600  # a busy machine takes minutes to begin
        while not context.join(timeout=10):  # returns when one process has ended
            assert time.monotonic() < deadline, "the processes wait for one another"
    finally:
        for process in context.processes:
            process.kill()
    return folder, [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def test_an_evaluation_has_the_same_statistics_on_all_processes(run: tuple[Path, list[dict[str, Any]]]) -> None:
    (before, first), (other, second) = (result["statistics"] for result in run[1])
    assert not torch.equal(before, other) and torch.equal(first, second)


def test_parts_of_an_update_on_two_processes(run: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    """As one process that takes all four parts."""
    one = toy.trainer(tmp_path, toy.config(iterations=3, accumulation=4), model=_plain_model())
    assert one.fit()
    first, second = (result["accumulated"] for result in run[1])
    for name, value in one.model.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)


def test_a_process_without_objects(run: tuple[Path, list[dict[str, Any]]]) -> None:
    """No hang, and the weights are those of one process that averages the two gradients."""
    model = _plain_model()
    settings = toy.config(accumulation=2, iterations=3)
    feeds = [toy.batches(EMPTY, 2, rank, 2, shuffle=False)(0) for rank in range(2)]
    updater = Updater(model, settings, toy.World())
    for step in range(3):
        for group in updater.optimizer.param_groups:
            group["lr"] = toy_rate(step)
        updater.begin()
        for rank in range(2):
            images, targets = next(feeds[rank])
            assert (sum(len(target["boxes"]) for target in targets) == 0) == (rank == 1)
            updater.backward(images, targets, last=rank == 1)
        updater.finish()
    for result in run[1]:
        for key, value in model.state_dict().items():
            assert torch.allclose(result["empty"][key], value, atol=1e-6), key


def toy_rate(step: int) -> float:
    part = min(step / 3, 1.0)
    return 0.05 * (1e-3 * (1 - part) + part)


def test_both_skip_what_is_bad_on_one(run: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = run
    assert [result["bad"]["skipped"] for result in results] == [1, 1]
    for key, value in results[0]["bad"]["model"].items():
        assert value.isfinite().all() and torch.equal(value, results[1]["bad"]["model"][key])
    processes = json.loads((folder / "bad" / "bad_batch.json").read_text())["processes"]
    assert [process["image_ids"] for process in processes] == [[4, 5], [6, 7]]
    assert [isinstance(process["losses"][0]["loss"], float) for process in processes] == [True, False]


def test_both_stop_after_three(run: tuple[Path, list[dict[str, Any]]]) -> None:
    messages = [result["stop"] for result in run[1]]
    assert messages[0] == messages[1] and "[8, 9, 10, 11]" in messages[0]


def test_both_leave_when_one_gets_a_signal(run: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = run
    assert [result["signal"] for result in results] == [3, 3]
    found = newest_readable(folder / "signal" / "checkpoints")
    assert found is not None and (found[1]["step"], found[1]["world_size"]) == (3, 2)


def test_two_processes_score_as_one_does(run: tuple[Path, list[dict[str, Any]]]) -> None:
    alone = json.loads(json.dumps(evaluate(Model(refine=True), list(range(IMAGES)))))
    results = [json.loads(result["evaluated"]["result"]) for result in run[1]]
    assert results[0] == results[1]
    for key in ("coarse", "refined", "per_category", "images", "detections"):
        assert results[0][key] == alone[key], key
    stats = results[0]["stats"]
    assert stats["contours"] == 7 and stats["restored"] == 2  # image 0 was computed twice
    assert stats["flip_share"][0] == pytest.approx((4 * 4 + 3 * 3) / 7)
    errors = [result["evaluated"]["error"] for result in run[1]]
    assert errors[0] == errors[1] and "image ids are not in ground truth" in errors[0]


def test_objects_travel(run: tuple[Path, list[dict[str, Any]]]) -> None:
    for result in run[1]:
        assert result["gathered"] == [0, 1] and result["broadcast"] == "from 0" and result["replaced"] == 3


def test_one_process_alone() -> None:
    assert distributed.start("cpu") == distributed.World()
    assert gather_objects(3) == [3] and broadcast_object("x") == "x"
    distributed.barrier()


def test_seeds_depend_on_every_part_of_the_key() -> None:
    draws = []
    for key in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0)]:
        distributed.seed_all(*key)
        draws.append(float(torch.rand(())))
    assert draws[0] == draws[4] and len(set(draws)) == 4


def test_everything_that_can_move_does() -> None:
    image, target = torch.ones(2), {"boxes": torch.ones(1, 4), "image_id": 3, "sizes": (4, 5)}
    images, targets = to_device(([image], [target]), torch.device("meta"))
    assert images[0].device.type == targets[0]["boxes"].device.type == "meta"
    assert (targets[0]["image_id"], targets[0]["sizes"]) == (3, (4, 5))


def test_more_processes_than_gpus_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="2 visible; use --nproc-per-node 2"):
        choose_device("cuda", 2)
