"""What refiners of given masks cost, on the same detections of the same images, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from data.result_files import box_of, find_images, read_entries
from eval.checks import GroundTruth, check_detections
from eval.diagnostics.timing import take_turns
from sharpcontour.io.files import read_json

Sample = tuple[np.ndarray, list[Any], list[list[float] | None]]
"""Pixels (H, W, 3) of an image, and of its detections the run lengths and the boxes, xyxy in pixels or None."""
Refiner = tuple[Callable[[Sample], object], nn.Module]
"""What refines a sample's masks, and the network that does it."""


def time_refiners(
    refiners: Mapping[str, Refiner],
    samples: Sequence[Sample],
    device: torch.device,
    warmup: int,
    repeats: int,
    progress: Callable[[], object],
) -> dict[str, dict[str, float]]:
    """Milliseconds of an image from run lengths to run lengths, without reading it, and parameters, by refiner.

    A turn of a refiner goes over all images; the median of the turns counts. The parameters are those of all that runs:
    of a refiner behind a host also the host's.

    Args:
        refiners: by name.
        samples: images with detections.
        device: to run on.
        warmup, repeats: rounds that do not count, and that do.
        progress: called after every round.
    """
    calls: dict[str, Callable[[], object]] = {name: _over_all(call, samples) for name, (call, _) in refiners.items()}
    times = take_turns(calls, device, warmup, repeats, progress)
    return {
        name: {
            "ms": statistics.median(times[name]) / len(samples),
            "parameters": float(sum(parameter.numel() for parameter in network.parameters())),
        }
        for name, (_, network) in refiners.items()
    }


def _over_all(refine: Callable[[Sample], object], samples: Sequence[Sample]) -> Callable[[], None]:
    def call() -> None:
        for sample in samples:
            refine(sample)

    return call


def read_samples(results: str, annotations: str, images: str, count: int) -> list[Sample]:
    """The first ``count`` images that have detections in a file of COCO results, with all of these."""
    known = read_json(annotations)
    truth, entries = GroundTruth(known, annotations), read_entries(results, scored=True)
    checked = check_detections(entries, truth, results)
    samples = []
    for image in find_images(entries, results, images, known, annotations)[:count]:
        pixels, _ = image.read(truth.sizes[image.id])
        masks = [checked[index]["segmentation"] for index in image.entries]
        samples.append((pixels, masks, [box_of(entries[index]) for index in image.entries]))
    return samples
