"""Data sets; their loader is ``data/loader.py``.

A data set has ``len``, ``categories`` (sorted by id), ``category_ids`` (of class indices 0, 1, ...), ``aspect_groups``,
``read_image``, ``ground_truth`` (COCO format, for evaluation), ``report`` (what was wrong with the annotations) and
samples. If it likes it has ``settings`` (the fields of :class:`DataConfig` that it reads), ``image_ids``, ``json_path``
(which messages name), ``missing()`` (image files that are not there) and ``replaced()`` (indices of training images
that could not be read).

A sample ``dataset[epoch, index]`` is {"image": (3, H, W) RGB, uint8 or float32 from 0 to 255, "target": dict}. An epoch
of -1 means evaluation: no augmentation, and a target of "image_id", "size" of the resized and "original_size" of the
stored image. Otherwise the target is :func:`data.transforms.make_target`'s, and what is random in the sample follows
from (seed, epoch, index).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from data.annotations import Annotations, Category
from data.coco import CocoDataset
from data.coco_split import LAYOUTS
from data.config import DataConfig
from data.shapes import ShapesDataset
from data.transforms import Sample
from sharpcontour.errors import InputError
from sharpcontour.host import TargetBuilder

__all__ = ["DATASETS", "DataConfig", "DatasetLike", "build_dataset"]


class DatasetLike(Protocol):
    """The interface that every data set offers."""

    categories: list[Category]
    category_ids: list[int]

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> Sample: ...

    def aspect_groups(self) -> np.ndarray: ...

    def read_image(self, index: int) -> np.ndarray: ...

    def ground_truth(self) -> Annotations: ...

    def report(self) -> str | None: ...


def build_dataset(config: DataConfig, split: str, prepare: TargetBuilder | None = None) -> DatasetLike:
    """The data set that a config names.

    Args:
        config: see :class:`DataConfig`.
        split: "train" or "val".
        prepare: called with every training target and its random numbers, in the loader process; picklable. None
            leaves the target as it is, "rings" included.

    Raises:
        InputError: for an unknown name, or where files are missing or broken.
    """
    if split not in ("train", "val"):
        raise InputError(f"unknown split {split!r}; choose train or val")
    if config.name not in DATASETS:
        raise InputError(f"unknown data set {config.name!r}; choose {', '.join(DATASETS)}")
    return DATASETS[config.name](config, split, prepare)


DATASETS: dict[str, Callable[[DataConfig, str, TargetBuilder | None], DatasetLike]] = {
    "shapes": ShapesDataset,
    **dict.fromkeys(LAYOUTS, CocoDataset),
}
"""Name -> what makes a split. A format of your own is a class and an entry here, see docs/extending.md."""
