"""Time calls against each other: warmed up, the device waited for, taking turns so that noise hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from sharpcontour.refiner import RefinedModel


def take_turns(
    calls: dict[str, Callable[[], object]], device: torch.device | str = "cpu", warmup: int = 2, repeats: int = 10
) -> dict[str, float]:
    """Median milliseconds of each call; one after the other in every round.

    Args:
        calls: by name.
        device: that they run on; it is waited for before and after each call.
        warmup: rounds that do not count.
        repeats: rounds that do.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            _wait(device)
            begin = time.perf_counter()
            call()
            _wait(device)
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - begin)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def _wait(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def refinement_cost(model: RefinedModel, images: list[Tensor], repeats: int = 10) -> dict[str, float]:
    """Milliseconds from images to run lengths: "host" alone, "refined", and what lies between, "evolution".

    Both whole times include the same: normalisation, network, suppression, and the encoding of every instance once.

    Args:
        model: in evaluation mode.
        images: (3, H, W) uint8 each, of one batch.
        repeats: rounds that count.
    """
    _, inputs = model.host.detect(images)
    calls: dict[str, Callable[[], object]] = {
        "host": lambda: [found.rles() for found in model.host(images)],
        "refined": lambda: [found.rles() for found in model(images)],
        "evolution": lambda: model.refiner.refine(inputs),
    }
    return take_turns(calls, inputs.fine.device, repeats=repeats)
