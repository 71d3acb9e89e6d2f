"""Time from an image file to run lengths: warmed up, the device waited for, taking turns so that noise hits all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import cv2
import numpy as np
import torch

from models.condinst.image_masks import ImageMasks
from models.predictor import Predictor
from models.two_stage.soft_masks import SoftMasks
from sharpcontour.config import SharpContourConfig
from sharpcontour.contours.lazy_masks import LazyMasks
from sharpcontour.contours.types import Contours
from sharpcontour.detections import CocoResult, Detections
from sharpcontour.errors import InputError
from sharpcontour.host import RefinerInputs
from sharpcontour.refined_model import RefinedModel

Mark = Callable[[str], object]
Place = Callable[[Detections, RefinerInputs], tuple[Detections, RefinerInputs]]


def take_turns(
    calls: dict[str, Callable[[], object]],
    device: torch.device | str = "cpu",
    warmup: int = 2,
    repeats: int = 10,
    progress: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Milliseconds of each call in every round; one after the other in a round.

    Args:
        calls: by name.
        device: that they run on; it is waited for before and after each call.
        warmup: rounds that do not count.
        repeats: rounds that do.
        progress: called after every round.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            wait(device)
            begin = time.perf_counter()
            call()
            wait(device)
            if turn >= warmup:
                times[name].append(1000 * (time.perf_counter() - begin))
        if progress is not None:
            progress()
    return times


def wait(device: torch.device | str) -> None:
    """Wait until the device has done all it was told."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()


def _nothing(stage: str) -> None:
    """Takes no time."""


class Pipeline:
    """From the bytes of an image file to COCO results, in the steps that a predictor takes.

    Args:
        predictor: its model has a refiner.
        place: moves the detections elsewhere, see :func:`drawn_instances`; None leaves them.
    """

    def __init__(self, predictor: Predictor, place: Place | None = None) -> None:
        assert isinstance(predictor.model, RefinedModel)
        self.predictor, self.model, self.place = predictor, predictor.model, place
        self.device = next(predictor.model.parameters()).device

    def __call__(self, data: bytes, refine: bool, mark: Mark = _nothing) -> list[CocoResult]:
        """COCO results of one image; ``mark`` is called with the name of every stage when it is done."""
        return self.finish(*self.begin(data, mark), refine, mark)

    @torch.inference_mode()
    def begin(self, data: bytes, mark: Mark = _nothing) -> tuple[Detections, RefinerInputs, tuple[int, int]]:
        """Run the stages load and host: detections, the refiner's inputs, and (height, width) of the file."""
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        pixels = self.predictor.resized(image).to(self.device)
        mark("load")
        (found,), inputs = self.model.host.detect([pixels])
        inputs = replace(inputs, images=[pixels])
        if self.place is not None:
            found, inputs = self.place(found, inputs)
        mark("host")
        return found, inputs, (image.shape[0], image.shape[1])

    @torch.inference_mode()
    def finish(
        self, found: Detections, inputs: RefinerInputs, size: tuple[int, int], refine: bool, mark: Mark = _nothing
    ) -> list[CocoResult]:
        """Run the stages trace, evolve and encode, which end in COCO results."""
        if refine:
            inputs = replace(inputs, contours=self.model.refiner.initial_contours(inputs))
            mark("trace")
            objects, _ = self.model.finish(inputs, self.model.refiner.refine(inputs))
            found = replace(found, shapes=objects)
            mark("evolve")
        entries = found.scaled_to(size).to_coco(0, self.predictor.category_ids)
        mark("encode")
        return entries


def time_settings(
    run: Pipeline,
    settings: dict[str, SharpContourConfig],
    data: bytes,
    warmup: int,
    repeats: int,
    progress: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Milliseconds of trace, evolve and encode in every round, for each of several settings of the same refiner."""
    start, refiner = run.begin(data), run.model.refiner
    usual = refiner.config

    def call(config: SharpContourConfig) -> None:
        refiner.config = config
        run.finish(*start, refine=True)

    try:
        calls: dict[str, Callable[[], object]] = {name: partial(call, config) for name, config in settings.items()}
        return take_turns(calls, run.device, warmup, repeats, progress)
    finally:
        refiner.config = usual


@dataclass
class Timings:
    """Median milliseconds of one image.

    Attributes:
        host: of the host alone, by stage and "total".
        refined: of the host with the refiner behind it, by stage and "total".
        ratio: quartiles of (refined total / host total), turn by turn.
        turns: the totals of every turn, "host" and "refined".
    """

    host: dict[str, float]
    refined: dict[str, float]
    ratio: tuple[float, float, float]
    turns: dict[str, list[float]]
    stages: ClassVar = ("load", "host", "trace", "evolve", "encode")


def time_pipelines(
    runs: dict[str, Pipeline], data: bytes, warmup: int, repeats: int, progress: Callable[[], object] | None = None
) -> dict[str, Timings]:
    """Time all pipelines with and without the refiner, in turns: their totals and, apart from these, their stages."""
    kinds = {"host": False, "refined": True}
    calls: dict[str, Callable[[], object]] = {
        f"{name}/{kind}": partial(run, data, refine) for name, run in runs.items() for kind, refine in kinds.items()
    }
    device = next(iter(runs.values())).device
    totals = take_turns(calls, device, warmup, repeats, progress)
    rows: dict[str, dict[str, list[float]]] = {key: {stage: [] for stage in Timings.stages} for key in calls}
    for turn in range(warmup + repeats):
        for key in calls:
            name, _, kind = key.rpartition("/")
            for stage, value in _stages(runs[name], data, kinds[kind]).items():
                if turn >= warmup:
                    rows[key][stage].append(value)
        if progress is not None:
            progress()
    medians = {
        key: {stage: statistics.median(values) if values else 0.0 for stage, values in rows[key].items()}
        | {"total": statistics.median(totals[key])}
        for key in calls
    }
    found = {}
    for name in runs:
        turns = {kind: totals[f"{name}/{kind}"] for kind in kinds}
        ratios = [after / before for before, after in zip(turns["host"], turns["refined"], strict=True)]
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
        found[name] = Timings(medians[f"{name}/host"], medians[f"{name}/refined"], (low, middle, high), turns)
    return found


def _stages(run: Pipeline, data: bytes, refine: bool) -> dict[str, float]:
    """Milliseconds of each stage of one image."""
    times: dict[str, float] = {}
    wait(run.device)
    last = time.perf_counter()

    def mark(stage: str) -> None:
        nonlocal last
        wait(run.device)
        now = time.perf_counter()
        times[stage], last = 1000 * (now - last), now

    run(data, refine, mark)
    return times


def drawn_instances(count: int, seed: int = 0) -> Place:
    """Puts the detections of random weights into boxes about as large as COCO's, with a wavy disc in each.

    Args:
        count: of the detections that get a place; any others are left out.
        seed: of places, sizes and shapes.

    What is returned raises InputError for a host that brings masks of a class of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, 5, generator=generator)
    made: dict[tuple[int, tuple[int, int]], tuple[torch.Tensor, LazyMasks | Contours]] = {}  # drawing takes its time

    def place(found: Detections, inputs: RefinerInputs) -> tuple[Detections, RefinerInputs]:
        n = min(len(found), count)
        if (n, found.size) not in made:
            boxes = _boxes(uniform[:n], found.size)
            made[n, found.size] = boxes, _drawn(inputs, boxes, uniform[:n, 4], found.size)
        boxes, drawn = made[n, found.size]
        contours, masks = (drawn, None) if isinstance(drawn, Contours) else (None, drawn)
        inputs = replace(
            inputs,
            boxes=boxes.to(inputs.boxes.device),
            image_index=inputs.image_index[:n],
            feats=inputs.feats[:n],
            contours=contours and contours.to(inputs.boxes.device),
            soft_masks=masks,
        )
        shapes = drawn.rings() if isinstance(drawn, Contours) else drawn
        return replace(found, boxes=boxes, scores=found.scores[:n], labels=found.labels[:n], shapes=shapes), inputs

    return place


def _boxes(uniform: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Boxes (K, 4) on an image of (height, width), made of numbers (K, 4) or more from 0 to 1."""
    limit = torch.tensor([size[1], size[0]], dtype=torch.float32)
    side = torch.exp(3.2 + 2.7 * uniform[:, 2:4]) * min(size) / 800  # 25 to 365 px at an image of 800 x 1333
    side = torch.minimum(side, limit)
    corner = uniform[:, :2] * (limit - side)
    return torch.cat([corner, corner + side], 1)


def _radius(angle: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    """Radius of a wavy disc at each angle; 1 reaches the sides of its box."""
    turn = 2 * torch.pi * phase
    return 0.85 * (1 + 0.12 * torch.sin(3 * angle + turn) + 0.05 * torch.sin(7 * angle - turn))


def _drawn(
    inputs: RefinerInputs, boxes: torch.Tensor, phase: torch.Tensor, size: tuple[int, int]
) -> LazyMasks | Contours:
    """Wavy discs that fill ``boxes``: contours or soft masks, as ``inputs`` has them, and of their resolution."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    if inputs.contours is not None:
        angle = torch.linspace(0, 2 * torch.pi, inputs.contours.vertices.shape[1] + 1)[:-1]
        reach = _radius(angle, phase[:, None])[..., None] * torch.stack([angle.cos(), angle.sin()], -1)
        return Contours.from_polygons(middle[:, None] + reach * half[:, None])
    masks = inputs.soft_masks
    if isinstance(masks, SoftMasks):
        rows, columns = masks.probabilities.shape[1:]
        x, y = torch.linspace(-1, 1, columns)[None, None], torch.linspace(-1, 1, rows)[None, :, None]
        return replace(masks, probabilities=_soft_discs(x, y, phase), boxes=boxes)
    if not isinstance(masks, ImageMasks):
        raise InputError(
            f"masks of the class {type(masks).__name__} cannot be drawn, so a host with these is not timed with random "
            "weights; give a trained one with --checkpoint"
        )
    place = [torch.arange(cells) * masks.stride + masks.stride / 2 + 0.5 for cells in masks.cells]
    x = (place[1][None, None] - middle[:, 0, None, None]) / half[:, 0, None, None]
    y = (place[0][None, :, None] - middle[:, 1, None, None]) / half[:, 1, None, None]
    return ImageMasks.from_maps(_soft_discs(x, y, phase), [size] * len(boxes), masks.stride)


def _soft_discs(x: torch.Tensor, y: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    """(K, rows, columns) from places seen from the discs' middles, in half box sides; near 0.5 alike at every size."""
    edge = _radius(torch.atan2(y, x), phase[:, None, None])
    return torch.sigmoid(8 * (edge - torch.hypot(x, y)))
