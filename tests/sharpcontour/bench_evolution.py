"""CPU time of the evolution, and of refining small pictures: python -m tests.sharpcontour.bench_evolution [--coco].

100 contours, N = 128, M = 10, n = 3: once with a phi of random weights, where no vertex flips, and once with one that
lets about as many vertices flip as a trained one, 60 % in the first iteration. Each is asked all at once as on a GPU,
then sparingly in parts of several sizes. With --coco also Mask R-CNN R50 with and without the refiner at COCO's size,
which takes minutes.

Not collected by pytest. CPU time of this process on one thread, medians; ratios are taken turn by turn.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch

from eval.diagnostics.timing import Pipeline, drawn_instances
from eval.diagnostics.untrained import _choose_threshold, _settle, drawn_file, untrained
from models.predictor import Predictor
from models.zoo import build_model, host_class
from sharpcontour import ipc
from sharpcontour.config import SharpContourConfig
from sharpcontour.contours import asking
from sharpcontour.contours.types import Contours
from sharpcontour.host import RefinerInputs
from sharpcontour.refiner import SharpContour

CONTOURS, HEIGHT, WIDTH = 100, 800, 1344
TURNS = 9
CPU = torch.device("cpu")


def turns(calls: dict[str, Callable[[], object]], count: int = TURNS) -> dict[str, list[float]]:
    """CPU milliseconds of each call in every turn but the first; ratios are to the first call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(count + 1):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            if turn:
                times[name].append(1000 * (time.process_time() - begin))
    usual = next(iter(times.values()))
    for name, values in times.items():
        ratio = statistics.median(one / other for one, other in zip(values, usual, strict=True))
        print(
            f"{name:44}{statistics.median(values):8.1f} ms{min(values):8.1f} at least   ratio {ratio:.3f}", flush=True
        )
    return times


def refiner_and_inputs() -> tuple[SharpContour, RefinerInputs]:
    """A refiner of random weights, and circles in boxes about as large as COCO's."""
    torch.manual_seed(0)
    refiner = SharpContour(SharpContourConfig(), 256, (256, 14, 14)).eval()
    side = torch.exp(3.2 + 2.7 * torch.rand(CONTOURS, 2))
    corner = torch.rand(CONTOURS, 2) * (torch.tensor([WIDTH, HEIGHT]) - side)
    boxes = torch.cat([corner, corner + side], 1)
    angle = torch.arange(128) * (2 * math.pi / 128)
    circle = 0.4 * torch.stack([angle.cos(), angle.sin()], -1)
    inputs = RefinerInputs(
        torch.randn(1, 256, HEIGHT // 4, WIDTH // 4),
        4,
        boxes,
        torch.zeros(CONTOURS, dtype=torch.int64),
        torch.randn(CONTOURS, 256, 14, 14),
        [(HEIGHT, WIDTH)],
        contours=Contours.from_polygons(corner[:, None] + (0.5 + circle) * side[:, None]),
    )
    return refiner, inputs


def flipping(described: ipc.Described) -> ipc.Described:
    """The same with weights that make phi tell a boundary near C(0), the distance from the middle of the box.

    The 16 units of the first layer look in 16 directions; the sum of what lies ahead of them is the distance, to 1.3 %.
    """
    shift = 0.006 * torch.exp(0.5 * torch.randn(CONTOURS)) * torch.randn(CONTOURS).sign()
    shift = torch.where(torch.rand(CONTOURS) < 0.35, 6 * shift, shift)
    config = SharpContourConfig().classifier
    weights = [torch.zeros(CONTOURS, outputs, inputs) for inputs, outputs in ipc.layer_sizes(config)]
    biases = [torch.zeros(CONTOURS, outputs) for _, outputs in ipc.layer_sizes(config)]
    units = config.hidden
    angle = torch.arange(units) * (2 * math.pi / units)
    weights[0][:, :, :2] = torch.stack([angle.cos(), angle.sin()], -1)
    weights[1][:, 0] = math.pi / units
    weights[2][:, 0, 0] = 1
    weights[3][:, 0, 0] = 125
    biases[3][:, 0] = -250 * (0.4 + shift)
    return replace(described, theta=torch.cat([part.flatten(1) for part in (*weights, *biases)], 1))


def bench_evolution() -> None:
    """100 contours, all at once and in parts."""
    refiner, inputs = refiner_and_inputs()
    random = refiner.classifier.describe(inputs)

    def run(points: int, sparing: bool) -> Any:
        with mock.patch.dict(ipc.POINTS_AT_ONCE, cpu=points), mock.patch.object(asking, "sparing", lambda _: sparing):
            return refiner.refine(inputs)

    calls: dict[str, Callable[[], object]] = {"all at once": partial(run, ipc.POINTS_ELSEWHERE, False)}
    calls["in parts"] = partial(run, ipc.POINTS_AT_ONCE["cpu"], False)
    for bits in (12, 13, 14, 15, 16):
        calls[f"sparingly, in parts of {1 << bits} points"] = partial(run, 1 << bits, True)
    for name, described in (("random weights", random), ("as trained", flipping(random))):
        with mock.patch.object(refiner.classifier, "describe", lambda _, found=described: found):
            shares = [f"{float(one.float().mean()):.2f}" for one in refiner.refine(inputs).flipped]
            print(f"{CONTOURS} contours, {name}; flips in each iteration: {', '.join(shares)}")
            turns(calls)


def bench_small(side: int = 192, instances: int = 10) -> None:
    """The small Mask R-CNN of the built-in shapes, from file to run lengths."""
    torch.manual_seed(0)
    model = build_model(host_class("mask_rcnn").small(), 10, SharpContourConfig())
    _settle(model, CPU)
    predictor = Predictor(model, [{"id": k + 1, "name": str(k)} for k in range(10)], side, side)
    coarse = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    picture = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".png", picture)[1].tobytes()
    _choose_threshold(predictor, data, instances)
    print(f"small Mask R-CNN, {side} pixels, {instances} detections, from file to run lengths")
    compare(Pipeline(predictor, drawn_instances(instances)), data)


def bench_coco() -> None:
    """Mask R-CNN R50 at COCO's size with 100 detections, from file to run lengths."""
    data = drawn_file()
    predictor = untrained("mask_rcnn", data, CPU, 100)
    print("Mask R-CNN R50, 100 detections, from file to run lengths")
    compare(Pipeline(predictor, drawn_instances(100)), data)


def compare(run: Pipeline, data: bytes) -> None:
    """With and without the refiner."""
    turns({"host": partial(run, data, False), "host + SharpContour": partial(run, data, True)})


if __name__ == "__main__":
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with torch.inference_mode():
        bench_evolution()
        bench_small()
        if "--coco" in sys.argv:
            bench_coco()
