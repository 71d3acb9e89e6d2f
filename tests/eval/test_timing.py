"""Timing: rounds, warm-up, and the same work on both sides of a comparison."""

from __future__ import annotations

import time

import torch

from eval.timing import refinement_cost, take_turns
from tests.sharpcontour.test_refiner import make


def test_calls_take_turns_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []

    def call(name: str, seconds: float):
        def run() -> None:
            order.append(name)
            time.sleep(0.2 if len(order) <= 2 else seconds)  # a slow start

        return run

    times = take_turns({"a": call("a", 0.002), "b": call("b", 0.02)}, warmup=1, repeats=3)
    assert order == ["a", "b"] * 4
    assert 2 <= times["a"] < times["b"] < 150


def test_host_and_refined_model_include_the_same() -> None:
    model = make().eval()
    encoded = []
    detect = model.host.detect

    def counted(images):
        found, inputs = detect(images)
        encoded.append(len(images))
        return found, inputs

    model.host.detect = counted
    model.host.forward = lambda images: model.host.detect(images)[0]
    times = refinement_cost(model, [torch.zeros(3, 64, 64, dtype=torch.uint8)] * 2, repeats=2)
    assert set(times) == {"host", "refined", "evolution"} and all(value > 0 for value in times.values())
    assert len(encoded) == 1 + 2 * 4  # once for the inputs, then once a round by the host and once by the whole
