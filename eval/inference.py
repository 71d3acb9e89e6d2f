"""Running a detector over a data set and scoring it, on one process or many."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from data import DatasetLike
from eval.boundary import DILATION_RATIO
from eval.checks import GroundTruth, ground_truth_of
from eval.metrics import USUAL, evaluate_detections
from eval.processes import broadcast_object, gather_on_first, rank_and_size
from sharpcontour.detections import CocoResult, Detections
from sharpcontour.errors import InputError
from sharpcontour.host import Target
from sharpcontour.io.files import save_results
from sharpcontour.statistics import EvolutionStatistics

ImageResults = tuple[list[CocoResult] | None, list[CocoResult], int]
"""Of one image: COCO results before refinement (None without a refiner), the final ones, and how many are of other
categories."""

_WAITING = 16  # images whose contours wait for the encoder at most


def evaluate_model(
    model: nn.Module,
    dataset: DatasetLike,
    loader: Iterable[tuple[Sequence[torch.Tensor], Sequence[Target]]],
    device: torch.device,
    *,
    metrics: Sequence[str] = USUAL,
    dilation_ratio: float = DILATION_RATIO,
    progress: bool = True,
    results_path: str | Path | None = None,
    category_ids: Sequence[int] | None = None,
    bootstrap: int = 0,
) -> dict[str, Any]:
    """Score a detector on a data set's ground truth.

    Every process runs it over its own part of the images; rank 0 scores them all. An image that comes twice, as in the
    padding of a sampler, counts once. The model is left in the mode it was in.

    Args:
        model: on ``device``; ``model(images)`` gives a Detections an image.
        dataset: has ``ground_truth()``, a dict of COCO annotations, and ``category_ids``.
        loader: batches of uint8 images (3, H, W) and of targets with "image_id" and "original_size" (height, width):
            this process's share of the data set. The objects on images that it has ``left_out`` count as missed.
        device: that the images go to.
        metrics: out of :data:`eval.metrics.METRICS`.
        dilation_ratio: width of Boundary AP's band as a share of the image diagonal.
        progress: whether rank 0 shows a bar, if there is a terminal to show it.
        results_path: file for the final detections that are scored, as COCO results.
        category_ids: of the model's classes, where these are more than the data set's; detections of the others are
            left out.
        bootstrap: draws of the images for "replicates".

    Returns:
        The same on every process.
        "refined" and "coarse" (without a refiner only "coarse"): the numbers of each metric in percent, None where
        undefined; "per_category": of each, AP by category name; with ``bootstrap`` "replicates": of each, AP of images
        drawn again, see :mod:`eval.bootstrap`.
        "stats": the refiner's, over all processes.
        "seconds": "load", "forward" and "encode" of the slowest process (encoding overlaps with the rest), "match",
        "total".
        "images", "detections": how many; "others": how many more, of categories that the data set lacks.
        "left_out": what was wrong with each image that could not be used.

    Raises:
        InputError: where the ground truth is broken, no image can be used, or ``results_path`` cannot be written.
    """
    begin = time.perf_counter()
    rank, _ = rank_and_size()
    ground_truth = ground_truth_of(dataset) if rank == 0 else None
    # Without the wrapper of distributed training: it synchronises buffers, and shares of the images differ in number.
    core: Any = getattr(model, "module", model)
    ids = dataset.category_ids if category_ids is None else category_ids
    found, seconds, stats = _detect(core, ids, set(dataset.category_ids), loader, device, progress and rank == 0)
    parts = gather_on_first((found, seconds, stats, list(getattr(loader, "left_out", ()))))
    outcome: Any = None
    if ground_truth is not None:
        try:
            outcome = _score(ground_truth, parts, metrics, dilation_ratio, results_path, bootstrap)
            outcome["seconds"]["total"] = time.perf_counter() - begin
        except InputError as error:
            outcome = error  # the other processes wait for an answer
    outcome = broadcast_object(outcome)
    if isinstance(outcome, InputError):
        raise outcome
    return outcome


@torch.no_grad()  # not inference_mode: what a model caches here may be used in training later
def _detect(
    model: Any,
    category_ids: Sequence[int],
    known: set[int],
    loader: Iterable[tuple[Sequence[torch.Tensor], Sequence[Target]]],
    device: torch.device,
    progress: bool,
) -> tuple[dict[int, ImageResults], dict[str, float], dict[str, Any]]:
    """Results, seconds and refiner statistics of this process."""
    statistics: EvolutionStatistics | None = getattr(model, "statistics", None)  # of a host with a refiner
    if statistics is not None:
        statistics.start()
    training = model.training
    model.eval()
    seconds = {"load": 0.0, "forward": 0.0}
    try:
        with _Encoder(category_ids, known) as encoder:
            mark = time.perf_counter()
            for images, targets in tqdm(loader, desc="evaluation", unit="batch", disable=None if progress else True):
                loaded = time.perf_counter()
                detections = model([image.to(device, non_blocking=True) for image in images])
                done = time.perf_counter()  # detections are on the CPU: nothing is left to wait for
                for target, result in zip(targets, detections, strict=True):
                    encoder.add(target["image_id"], result, target["original_size"])
                seconds["load"] += loaded - mark
                seconds["forward"] += done - loaded
                mark = time.perf_counter()
            found = encoder.finish()
    finally:
        model.train(training)
    seconds["encode"] = encoder.seconds
    return found, seconds, {} if statistics is None else statistics.finish()


class _Encoder:
    """Makes COCO results in a thread, while the device works on the next images."""

    def __init__(self, category_ids: Sequence[int], known: set[int]) -> None:
        self.seconds = 0.0  # processor time of the thread
        self._category_ids, self._known = category_ids, known
        self._found: dict[int, ImageResults] = {}
        self._seen: set[int] = set()
        self._jobs: deque[tuple[int, Future[ImageResults]]] = deque()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> _Encoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, image_id: int, detections: Detections, size: tuple[int, int]) -> None:
        """Queue one image's detections, to be scaled to (height, width)."""
        if image_id in self._seen:
            return
        self._seen.add(image_id)
        if len(self._jobs) >= _WAITING:
            self._collect()
        self._jobs.append((image_id, self._pool.submit(self._encode, image_id, detections, size)))

    def finish(self) -> dict[int, ImageResults]:
        while self._jobs:
            self._collect()
        return self._found

    def _collect(self) -> None:
        image_id, job = self._jobs.popleft()
        try:
            self._found[image_id] = job.result()
        except Exception as error:
            raise RuntimeError(f"image {image_id}: no results could be made of its detections") from error

    def _encode(self, image_id: int, detections: Detections, size: tuple[int, int]) -> ImageResults:
        begin = time.thread_time()
        scaled = detections.scaled_to((int(size[0]), int(size[1])))
        coarse = None if scaled.coarse is None else self._entries(scaled.coarse, image_id)
        final = self._entries(scaled, image_id)
        self.seconds += time.thread_time() - begin
        return coarse, final, len(scaled) - len(final)

    def _entries(self, detections: Detections, image_id: int) -> list[CocoResult]:
        entries = detections.to_coco(image_id, self._category_ids)
        return [entry for entry in entries if entry["category_id"] in self._known]


def _score(
    ground_truth: GroundTruth,
    parts: Sequence[tuple[dict[int, ImageResults], dict[str, float], dict[str, Any], list[str]]],
    metrics: Sequence[str],
    dilation_ratio: float,
    results_path: str | Path | None,
    bootstrap: int,
) -> dict[str, Any]:
    """Join what all processes found, and score it."""
    found: dict[int, ImageResults] = {}
    for part, *_ in parts:
        found = part | found  # an image that two processes had counts for the first
    left_out = [line for *_, lines in parts for line in lines]
    if left_out and not found:
        raise InputError(f"none of the {len(left_out)} images can be used; the first: {left_out[0]}")
    missing = len(ground_truth.sizes) - len(found) - len(left_out)
    if missing > 0:
        print(f"warning: {missing} of {len(ground_truth.sizes)} images were not given to the model", file=sys.stderr)
    order = sorted(found)
    others = sum(count for *_, count in found.values())
    final = [entry for image in order for entry in found[image][1]]
    if results_path is not None:
        save_results(final, results_path)
    begin = time.perf_counter()
    refined = any(coarse is not None for coarse, *_ in found.values())
    kinds = {"coarse": final}
    if refined:
        kinds = {"coarse": [entry for image in order for entry in found[image][0] or ()], "refined": final}
    result: dict[str, Any] = {"per_category": {}} | ({"replicates": {}} if bootstrap else {})
    for kind, entries in kinds.items():
        scores = evaluate_detections(ground_truth, entries, metrics, dilation_ratio, "detections", bootstrap=bootstrap)
        result[kind] = {metric: values.summary for metric, values in scores.items()}
        if bootstrap:
            result["replicates"][kind] = {metric: values.replicates for metric, values in scores.items()}
        result["per_category"][kind] = {metric: values.per_category for metric, values in scores.items()}
    seconds = {key: max(times[key] for _, times, *_ in parts) for key in ("load", "forward", "encode")}
    seconds["match"] = time.perf_counter() - begin
    stats = merge_stats([stats for _, _, stats, _ in parts])
    counts = {"images": len(found), "detections": len(final), "others": others, "left_out": left_out}
    return result | {"stats": stats, "seconds": seconds} | counts


def merge_stats(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Refiner statistics of several processes as one: counts add up, means are weighted by "contours"."""
    seen = [part for part in parts if part.get("contours")]
    if not seen:
        return dict(parts[0]) if parts else {}
    weights = [part["contours"] for part in seen]
    return {key: _joined([part[key] for part in seen], weights) for key in seen[0]}


def _joined(values: Sequence[Any], weights: Sequence[int]) -> Any:
    if isinstance(values[0], int):
        return sum(values)
    if isinstance(values[0], (list, tuple)):
        return [_joined(column, weights) for column in zip(*values, strict=True)]
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
