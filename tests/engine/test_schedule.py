"""Learning rates by hand, and what the optimizers are made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.config import TrainConfig
from engine.schedule import build_optimizer, learning_rate, set_learning_rate

COCO_1X = TrainConfig()


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.01 / 1000),
        (500, 0.01 * 0.5005),
        (999, 0.01 * 0.999001),
        (1000, 0.01),
        (59_999, 0.01),
        (60_000, 0.001),
        (79_999, 0.001),
        (80_000, 0.0001),
        (89_999, 0.0001),
    ],
)
def test_steps_with_warmup(step: int, rate: float) -> None:
    assert learning_rate(step, COCO_1X) == pytest.approx(rate, rel=1e-9)


def test_linear_scaling() -> None:
    assert learning_rate(5000, TrainConfig(images_per_batch=8)) == pytest.approx(0.005)
    assert learning_rate(5000, TrainConfig(images_per_batch=6)) == pytest.approx(0.00375)


def test_cosine() -> None:
    settings = TrainConfig(schedule="cosine", iterations=100, warmup_iterations=0, base_lr=1.0)
    assert [learning_rate(step, settings) for step in (0, 50, 100)] == pytest.approx([1.0, 0.5, 0.0])
    settings.warmup_iterations, settings.warmup_factor = 10, 0.0
    assert learning_rate(5, settings) == pytest.approx(0.5 * (0.5 + 0.5 * 0.98768834))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_groups_have_their_own_decay_and_rate_and_frozen_weights_are_left_out(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.GroupNorm(1, 2), nn.Conv2d(2, 1, 1), nn.BatchNorm2d(1))
    model[2].requires_grad_(False)
    settings = TrainConfig(optimizer=name, bias_lr_factor=2.0)  # type: ignore[arg-type]
    optimizer = build_optimizer(model, settings)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1, 4]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4, 1e-4, 0.0]
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 1.0, 0.5]
    settings.bias_weight_decay = 0.0
    assert [group["weight_decay"] for group in build_optimizer(model, settings).param_groups] == [1e-4, 0.0, 0.0]


def test_momentum_begins_as_usual() -> None:
    """Buffers that begin as zeros give the same course as torch's own, which begin as the first gradient."""
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    settings = TrainConfig(images_per_batch=1, reference_batch=1, warmup_iterations=0)
    one = build_optimizer(ours, settings)
    other = torch.optim.SGD(theirs.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    for _ in range(4):
        for model, optimizer in ((ours, one), (theirs, other)):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-7)
