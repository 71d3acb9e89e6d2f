"""An interrupted run ends where an uninterrupted one does, bit for bit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from engine.trainer import Batches, Trainer
from models.loading import newest_readable
from models.speed import lay_out_weights
from sharpcontour.errors import InputError
from tests.engine import toy


def _weights(one: Trainer) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in one.model.state_dict().items()}


def _losses(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("workers", [0, 2])
def test_two_times_five_steps_are_ten(tmp_path: Path, optimizer: str, workers: int) -> None:
    """Five steps end in the middle of the second epoch (three steps each)."""
    settings = toy.config(optimizer=optimizer, accumulation=2, log_period=1)
    straight = toy.trainer(tmp_path / "straight", settings)
    assert straight.fit()

    def stop_after_five(step: int) -> dict[str, float]:
        raise KeyboardInterrupt

    halves = toy.config(**{**vars(settings), "eval_period": 5})
    first = toy.trainer(tmp_path / "twice", halves, workers=workers, evaluate=stop_after_five)
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    assert first.step == 5
    torch.manual_seed(99)
    second = toy.trainer(tmp_path / "twice", settings, workers=workers, model=toy.ToyModel())
    found = newest_readable(tmp_path / "twice" / "checkpoints")
    assert found is not None
    second.resume(found[1], found[0])
    assert second.step == 5
    torch.manual_seed(123)  # a new process would have other generator states
    assert second.fit()
    assert _same(_weights(straight), _weights(second))
    assert _losses(tmp_path / "straight") == _losses(tmp_path / "twice")
    old, new = straight.updater.optimizer.state_dict(), second.updater.optimizer.state_dict()
    for index, state in old["state"].items():
        assert _same(state, new["state"][index])


def test_log_lines_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    one = toy.trainer(tmp_path, toy.config(iterations=4, log_period=1))
    one.fit()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 5, "loss": 1}\n{"step": 6, "lo')
    again = toy.trainer(tmp_path, toy.config(iterations=6, log_period=1))
    found = newest_readable(tmp_path / "checkpoints")
    assert found is not None
    again.resume(found[1], found[0])
    again.fit()
    assert [step for step, _ in _losses(tmp_path)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("stored", [5, None])
def test_counts_of_skipped_updates_go_on(tmp_path: Path, stored: int | None) -> None:
    toy.trainer(tmp_path, toy.config(iterations=2)).fit()
    found = newest_readable(tmp_path / "checkpoints")
    assert found is not None and found[1]["overflowed"] == 0
    found[1].pop("overflowed")  # as in a checkpoint of an earlier version
    state = found[1] | {"skipped": 3} | ({} if stored is None else {"overflowed": stored})
    again = toy.trainer(tmp_path, toy.config(iterations=4))
    again.resume(state, found[0])
    assert (again.skipped, again.overflowed) == (3, stored or 0)


def test_evaluation_in_between_changes_nothing(tmp_path: Path) -> None:
    def noisy(step: int) -> dict[str, float]:
        torch.rand(step + 1)
        return {"eval/AP": float(step)}

    plain = toy.trainer(tmp_path / "a", toy.config())
    plain.fit()
    evaluated = toy.trainer(tmp_path / "b", toy.config(eval_period=3), evaluate=noisy)
    evaluated.fit()
    assert _same(_weights(plain), _weights(evaluated))
    lines = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "eval/AP" in line] == [3, 6, 9, 10]


@pytest.mark.skipif(os.name != "posix", reason="on Windows such a signal ends the process itself")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_leaves(tmp_path: Path, number: int) -> None:
    inner = toy.batches(toy.ToyData(), 4)

    def feed(n: int) -> Batches:
        for index, batch in enumerate(inner(n)):
            if index == 4:
                for _ in range(2):  # as from a scheduler and from torchrun
                    os.kill(os.getpid(), number)
            yield batch

    def evaluate(step: int) -> dict[str, float]:
        raise AssertionError("there is no time for an evaluation")

    one = toy.trainer(tmp_path, toy.config(), feed=feed, evaluate=evaluate)
    before = signal.getsignal(number)
    assert not one.fit()
    assert signal.getsignal(number) is before
    assert one.step == 5
    found = newest_readable(tmp_path / "checkpoints")
    assert found is not None and found[1]["step"] == 5


def test_other_number_of_processes_warns_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.trainer(tmp_path, toy.config(iterations=5)).fit()
    found = newest_readable(tmp_path / "checkpoints")
    assert found is not None
    found[1]["world_size"] = 2
    begun: list[int] = []

    def feed(n: int) -> Batches:
        begun.append(n)
        return toy.batches(toy.ToyData(), 2)(n)

    second = toy.trainer(tmp_path, toy.config(iterations=6, accumulation=2), feed=feed)
    second.resume(found[1], found[0])
    assert "written by 2 processes, now there are 1" in capsys.readouterr().out
    assert second.fit()
    assert begun == [5 * 4 // 2]  # five updates of four images are ten passes of two


def test_a_resumed_run_has_its_own_options(tmp_path: Path) -> None:
    toy.trainer(tmp_path, toy.config(iterations=5, weight_decay=0.1, momentum=0.9)).fit()
    found = newest_readable(tmp_path / "checkpoints")
    assert found is not None
    second = toy.trainer(tmp_path, toy.config(iterations=6, weight_decay=0.3, momentum=0.5))
    own = [dict(group) for group in second.updater.optimizer.state_dict()["param_groups"]]
    second.resume(found[1], found[0])
    assert second.updater.optimizer.state_dict()["param_groups"] == own
    assert {group["momentum"] for group in own} == {0.5}


def test_the_optimizer_of_another_torch_goes_on(tmp_path: Path) -> None:
    """Versions of torch differ in the options of an optimizer."""
    toy.trainer(tmp_path, toy.config(iterations=5, optimizer="adamw")).fit()
    found = newest_readable(tmp_path / "checkpoints")
    assert found is not None
    groups = found[1]["optimizer"]["param_groups"]
    for group in groups:
        group.pop("decoupled_weight_decay", None)
        group["of_the_future"] = True
    second = toy.trainer(tmp_path, toy.config(iterations=6, optimizer="adamw"))
    own = second.updater.optimizer.state_dict()["param_groups"][0].keys()
    second.resume(found[1], found[0])
    assert second.updater.optimizer.param_groups[0].keys() >= own and second.fit()
    third = toy.trainer(tmp_path, toy.config(iterations=6, optimizer="sgd"))
    with pytest.raises(InputError, match="another optimizer"):
        third.resume(found[1], found[0])


def test_a_finished_run_goes_on_in_another_folder(tmp_path: Path) -> None:
    toy.trainer(tmp_path / "a", toy.config(iterations=5)).fit()
    found = newest_readable(tmp_path / "a" / "checkpoints")
    assert found is not None
    second = toy.trainer(tmp_path / "b", toy.config(iterations=5))
    second.resume(found[1], found[0])
    assert second.fit()
    copied = newest_readable(tmp_path / "b" / "checkpoints")
    assert copied is not None and copied[1]["step"] == 5 and _same(copied[1]["model"], found[1]["model"])


def test_an_evaluation_that_was_interrupted_is_made_up_for(tmp_path: Path) -> None:
    evaluated: list[int] = []

    def evaluate(step: int) -> dict[str, float]:
        evaluated.append(step)
        if evaluated == [3, 6]:
            raise KeyboardInterrupt
        return {"eval/AP": 1.0}

    settings = toy.config(eval_period=3, iterations=8)
    with pytest.raises(KeyboardInterrupt):
        toy.trainer(tmp_path, settings, evaluate=evaluate).fit()
    for _ in range(2):  # the second time there is nothing to make up for
        again = toy.trainer(tmp_path, settings, evaluate=evaluate)
        found = next(path for path in (tmp_path / "checkpoints").iterdir() if "0006" in path.name)
        again.resume(torch.load(found, weights_only=True), found)
        assert again.fit()
    assert evaluated == [3, 6, 6, 8, 8]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_layout_in_memory_may_change(tmp_path: Path, optimizer: str) -> None:
    """Fused optimizers go through weights and moments in the order of memory, so the two must agree on it."""
    # Gradients of this size drown rounding: moments of other weights would show at once.
    settings = toy.config(optimizer=optimizer, iterations=5, base_lr=0.01)
    straight = toy.trainer(tmp_path / "straight", settings)
    assert straight.fit()
    longer = toy.config(**{**vars(settings), "iterations": 8})
    ends = []
    for name in ("same", "other"):
        model = toy.ToyModel(dropout=0)
        if name == "other":
            lay_out_weights(model)
            assert model.body[0].weight.is_contiguous(memory_format=torch.channels_last)
        one = toy.trainer(tmp_path / name, longer, model=model)
        found = newest_readable(tmp_path / "straight" / "checkpoints")
        assert found is not None
        one.resume(found[1], found[0])
        assert one.fit()
        ends.append(_weights(one))
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=1e-4, atol=1e-5)
