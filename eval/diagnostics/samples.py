"""Validation images with their objects, as the diagnostics ask for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tqdm import tqdm

from data import DatasetLike
from data.transforms import Sample
from sharpcontour.io.images import ImageError


def annotated_samples(dataset: DatasetLike, count: int, what: str) -> Iterator[Sample]:
    """The first images of a data set with their objects, as in its first epoch of training, under a bar.

    An image that cannot be read is told on stderr and left out.

    Args:
        dataset: the split "val" of :meth:`data.config.DataConfig.at_test_size`.
        count: images at most.
        what: title of the bar.
    """
    for index in tqdm(range(min(count, len(dataset))), desc=what, unit="image", disable=None):
        try:
            sample = dataset[0, index]
        except ImageError as error:
            print(f"warning: {error}; it is left out", file=sys.stderr, flush=True)
            continue
        yield sample
