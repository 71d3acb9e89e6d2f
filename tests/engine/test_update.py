"""Losses that are not finite, accumulation, mixed precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.trainer import Trainer, images_per_pass
from engine.update import Updater
from sharpcontour.errors import InputError
from tests.engine import toy


def _in_order(data: toy.ToyData, per_pass: int = 4) -> Any:
    return toy.batches(data, per_pass, shuffle=False)


def _snapshot(one: Trainer) -> dict[str, Tensor]:
    states = one.updater.optimizer.state_dict()["state"]
    momenta = {f"{index}.{key}": value for index, state in states.items() for key, value in state.items()}
    weights = {key: value for key, value in one.model.state_dict().items() if "num_batches" not in key}
    return {key: value.clone() for key, value in {**weights, **momenta}.items()}


@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("at", [0, 2])
def test_a_bad_batch_changes_nothing(tmp_path: Path, amp: str, optimizer: str, at: int) -> None:
    """Weights, momenta and norm statistics after a skipped update are those before it; then training goes on."""
    data = toy.ToyData(poisoned=(4 * at + 1,))
    settings = toy.config(optimizer=optimizer, amp=amp, iterations=at + 1)
    one = toy.trainer(tmp_path, settings, model=toy.ToyModel(batch_norm=True), feed=_in_order(data))
    batches = _in_order(data)(0)
    for _ in range(at):
        _step(one, next(batches))
    before = _snapshot(one)
    _step(one, next(batches))
    after = _snapshot(one)
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    assert not any(value.any() for key, value in after.items() if key not in before)  # AdamW's begin as zeros
    for _ in range(3):
        _step(one, next(_in_order(toy.ToyData())(0)))
    assert all(tensor.isfinite().all() for tensor in _snapshot(one).values())
    assert not torch.equal(before["head.weight"], one.model.state_dict()["head.weight"])


def _step(one: Trainer, batch: Any) -> None:
    one.updater.begin()
    one.updater.backward(*batch, last=True)
    one.updater.finish()


def test_a_bad_batch_is_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = toy.ToyData(poisoned=(5,))
    one = toy.trainer(tmp_path, toy.config(iterations=3, log_period=3), feed=_in_order(data))
    assert one.fit()
    assert one.skipped == 1 and one.skipped_in_a_row == 0
    report = json.loads((tmp_path / "bad_batch.json").read_text())["processes"][0]
    assert (report["step"], report["image_ids"], report["losses"][0]["loss"]) == (1, [4, 5, 6, 7], "nan")
    assert "step 1 is not finite" in capsys.readouterr().out
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert line["skipped"] == 1 and line["loss"] is not None


def test_three_in_a_row_stop_the_run(tmp_path: Path) -> None:
    data = toy.ToyData(poisoned=tuple(range(4, 12)))
    one = toy.trainer(tmp_path, toy.config(), feed=_in_order(data, 2), data=data)
    one.config.images_per_batch = 2
    with pytest.raises(InputError, match=r"3 updates in a row were not finite, the last at step 4 .*\[8, 9\]"):
        one.fit()
    assert all(value.isfinite().all() for value in one.model.state_dict().values())


def test_gradient_overflow_of_float16_is_no_bad_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = toy.trainer(tmp_path, toy.config(amp="fp16", iterations=8))
    one.updater.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**17)
    assert one.fit()
    assert one.skipped == 0 and one.updater.scaler.get_scale() < 2.0**17
    assert 0 < one.overflowed < 8
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-2])
    assert last["overflowed"] == one.overflowed
    assert f"{one.overflowed} updates skipped, float16 overflowed" in capsys.readouterr().out
    assert not (tmp_path / "bad_batch.json").exists()


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_is_a_big_batch(parts: int) -> None:
    data = toy.ToyData(length=4)
    norms = []
    for accumulation in (1, parts):
        torch.manual_seed(0)
        model = toy.ToyModel(dropout=0.0)
        updater = Updater(model, toy.config(accumulation=accumulation, warmup_iterations=0), toy.World())
        feed = toy.batches(_SingleBoxes(data.length), 4 // accumulation)(0)
        updater.begin()
        for part in range(accumulation):
            updater.backward(*next(feed), last=part == accumulation - 1)
        norm, skipped = updater.finish()
        assert not skipped
        norms.append((float(norm), model.head.weight.clone()))
    assert norms[0][0] == pytest.approx(norms[1][0], rel=1e-5)
    assert torch.allclose(norms[0][1], norms[1][1], atol=1e-6)


class _SingleBoxes(toy.ToyData):
    """One object on each image: the mean over a batch is then the mean of the means of its parts."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict[str, Any]]:
        image, target = super().__getitem__(key)
        return image, {**target, "boxes": target["boxes"][:1]}


def test_clipping_bounds_the_update() -> None:
    settings = toy.config(clip_grad_norm=0.1, warmup_iterations=0, momentum=0.0, weight_decay=0.0)
    model = toy.ToyModel(dropout=0.0)
    updater = Updater(model, settings, toy.World())
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    updater.begin()
    updater.backward(*next(toy.batches(toy.ToyData(), 4)(0)), last=True)
    norm, _ = updater.finish()
    moved = torch.cat([p.detach().flatten() for p in model.parameters()]) - before
    assert norm > 0.1
    assert float(moved.norm()) == pytest.approx(0.05 * 0.1, rel=1e-3)


def test_norms_over_processes_without_gpus_are_refused() -> None:
    model = torch.nn.Sequential(toy.ToyModel(), torch.nn.SyncBatchNorm(4))
    with pytest.raises(InputError, match="sync_bn need GPUs, and here are 2 processes on cpu; set them to bn"):
        Updater(model, toy.config(), toy.World(size=2))


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match=r"does not divide among 3 processes x 2 accumulation steps; .* multiple of 6"):
        images_per_pass(toy.config(images_per_batch=8, accumulation=2), toy.World(size=3))
