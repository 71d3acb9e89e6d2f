"""Timing: rounds, warm-up, and the same work on both sides of a comparison."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from eval.diagnostics.timing import Pipeline, drawn_instances, take_turns, time_pipelines
from models import build_model
from models.predictor import Predictor
from sharpcontour import InputError, SharpContourConfig
from sharpcontour.contours.lazy_masks import LazyMasks
from tests.models.helpers import TINY, confident, drawn


def test_calls_take_turns_and_the_warm_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    now = [0.0]
    monkeypatch.setattr("eval.diagnostics.timing.time.perf_counter", lambda: now[0])

    def call(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds * len(order)  # another time in each round

    rounds: list[int] = []
    calls = {"a": partial(call, "a", 0.002), "b": partial(call, "b", 0.02)}
    times = take_turns(calls, warmup=1, repeats=3, progress=lambda: rounds.append(1))
    assert order == ["a", "b"] * 4 and len(rounds) == 4
    assert times == {"a": pytest.approx([6, 10, 14]), "b": pytest.approx([80, 120, 160])}


def pipeline(name: str, place: bool = True) -> tuple[Pipeline, bytes]:
    model = build_model(confident(name), 2, SharpContourConfig()).eval()
    predictor = Predictor(model, [{"id": 5, "name": "a"}, {"id": 9, "name": "b"}], 96, 160)
    image = drawn(3, 2, 60, 80)[0].permute(1, 2, 0).numpy()
    data = cv2.imencode(".png", image)[1].tobytes()
    return Pipeline(predictor, drawn_instances(5) if place else None), data


@pytest.mark.parametrize("name", sorted(TINY))
def test_the_pipeline_does_what_the_predictor_does(name: str) -> None:
    run, data = pipeline(name, place=False)
    image = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    found = run.predictor.predict(image)
    assert len(found) and found.coarse is not None
    assert run(data, refine=True) == found.to_coco(0, [5, 9])
    assert run(data, refine=False) == found.coarse.to_coco(0, [5, 9])


# One of each way to find masks; the two rivals take longer.
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in ("pointrend", "refinemask"))) for name in sorted(TINY)],
)
def test_both_configurations_are_timed(name: str) -> None:
    run, data = pipeline(name)
    rounds = []
    times = time_pipelines({"a": run, "b": run}, data, 1, 2, lambda: rounds.append(1))["b"]
    assert len(rounds) == 6 and len(times.turns["refined"]) == 2
    assert times.host["trace"] == times.host["evolve"] == 0 < times.refined["evolve"]
    for kind in (times.host, times.refined):
        assert all(kind[stage] > 0 for stage in ("load", "host", "encode", "total"))
    low, middle, high = times.ratio
    assert 0 < low <= middle <= high


def test_a_host_with_masks_of_its_own_is_told() -> None:
    own_masks: Any = type("Own", (LazyMasks,), dict.fromkeys(LazyMasks.__abstractmethods__))
    run, data = pipeline("mask_rcnn")
    detect = run.model.host.detect

    def own(images: list[torch.Tensor]) -> Any:
        found, inputs = detect(images)
        return found, replace(inputs, soft_masks=own_masks())

    run.model.host.detect = own  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"masks of the class Own cannot be drawn.*--checkpoint"):
        run(data, refine=True)


@pytest.mark.parametrize("name", sorted(TINY))
def test_drawn_places_are_the_same_for_both(name: str) -> None:
    run, data = pipeline(name)
    host, refined = run(data, refine=False), run(data, refine=True)
    assert len(host) == len(refined) == 5 and [e["bbox"] for e in host] == [e["bbox"] for e in refined]
    areas = coco_mask.area([entry["segmentation"] for entry in host])
    boxes = np.array([entry["bbox"] for entry in host])
    assert (areas > 0.4 * boxes[:, 2] * boxes[:, 3] - 4).all()
