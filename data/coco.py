"""Samples of any instance segmentation data set in COCO's format, for training and for evaluation."""

from __future__ import annotations

import dataclasses
import sys
from typing import ClassVar

import numpy as np

from data.coco_split import CocoSplit
from data.config import DataConfig
from data.transforms import (
    Instances,
    Sample,
    cut_image,
    cut_instances,
    drop_empty,
    flip_image,
    flip_instances,
    jitter_colours,
    make_target,
    resize,
    resize_image,
    to_tensor,
    window_around,
)
from sharpcontour.errors import InputError
from sharpcontour.formats.which_image import first_names
from sharpcontour.host import Target, TargetBuilder

MOST_ENLARGED = 3.0  # times, of an image whose object is small
LISTED = 10  # unreadable images named in a message
NOT_READ = {"name", "shapes_size", "train_images_count", "val_images_count"}  # fields of DataConfig


class CocoDataset(CocoSplit):
    """A split of a COCO-format set; samples as in ``data/__init__.py``.

    An unreadable image of "train" is replaced by the next one in training, up to ``max_unreadable`` of all; one of
    "val", and any in evaluation, is an ImageError, and the loader leaves it out.

    Args:
        config: paths, sizes and augmentation.
        split: "train" or "val".
        prepare: what the model adds to every training target.
    """

    settings: ClassVar = frozenset(field.name for field in dataclasses.fields(DataConfig)) - NOT_READ

    def __init__(self, config: DataConfig, split: str, prepare: TargetBuilder | None = None) -> None:
        import torch  # here: the names of the data sets are options of commands, whose --help needs no torch

        super().__init__(config, split)
        self.prepare = prepare
        self._unreadable = torch.zeros(len(self), dtype=torch.uint8).share_memory_()  # marked by all workers

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        if epoch < 0:
            return self._evaluation_sample(index)
        if self.split == "val":
            return self._training_sample(epoch, index)
        while True:
            if self._unreadable[index]:
                index = self._replacement(index)
            try:
                return self._training_sample(epoch, index)
            except InputError as error:
                self._unreadable[index] = 1
                print(f"warning: {error}; training uses another image in its place", file=sys.stderr, flush=True)
                self._check_limit(error)

    def _replacement(self, index: int) -> int:
        """The next readable image, if there is one of the same orientation, so that the batch keeps its shape."""
        order = (index + 1 + np.arange(len(self))) % len(self)
        readable = order[self._unreadable.numpy()[order] == 0]
        if len(readable) == 0:
            raise InputError(f"{self.folder}: no image can be read")
        groups = self.aspect_groups()
        return int(readable[np.argmax(groups[readable] == groups[index])])

    def _check_limit(self, error: InputError) -> None:
        bad = self.replaced()
        allowed = max(1, int(self.config.max_unreadable * len(self)))
        if len(bad) > allowed:
            raise InputError(
                f"{len(bad)} unreadable training images, {allowed} allowed (data.max_unreadable): "
                f"{first_names(map(self.path, bad), LISTED)}; "
                f"mend or remove them. The last: {error}"
            )

    def _evaluation_sample(self, index: int) -> Sample:
        image = self.read_image(index)
        original = (int(self.sizes[index, 0]), int(self.sizes[index, 1]))
        config = self.config
        image = resize_image(image, config.test_short_side, config.test_max_side, config.resize)
        target: Target = {"image_id": int(self.image_ids[index]), "size": image.shape[:2], "original_size": original}
        return {"image": to_tensor(image), "target": target}

    def _training_sample(self, epoch: int, index: int) -> Sample:
        config = self.config
        rng = np.random.default_rng((config.seed, epoch, index))
        original = (int(self.sizes[index, 0]), int(self.sizes[index, 1]))
        if config.object_crop:
            image, instances = self._crop(index, original, rng)
            size = image.shape[:2]
        else:
            short_side = config.short_sides[int(rng.integers(len(config.short_sides)))]
            image = resize_image(self.read_image(index), short_side, config.max_side, config.resize)
            size = image.shape[:2]
            instances = self.objects.instances(int(self._rows[index]), original, size)
        instances = drop_empty(instances, *size)
        if config.colour:
            image = jitter_colours(image, config.colour, rng)
        if rng.random() < config.flip:
            image, instances = flip_image(image), flip_instances(instances, size[1])
        target = make_target(int(self.image_ids[index]), size, instances, self.prepare, rng)
        return {"image": to_tensor(image), "target": target}

    def _crop(self, index: int, original: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, Instances]:
        """A random object with its surroundings, at a random scale, and all objects that are to be seen there."""
        config, row = self.config, int(self._rows[index])
        boxes = self.objects.boxes[self.objects.first[row] : self.objects.first[row + 1]]
        box = boxes[int(rng.integers(len(boxes)))] if len(boxes) else np.array([0, 0, *original[::-1]], np.float32)
        longer = max(float((box[2:] - box[:2]).max()), 1.0)
        scale = min(config.object_crop * rng.uniform(*config.object_share) / longer, MOST_ENLARGED)
        size = max(round(original[0] * scale), 1), max(round(original[1] * scale), 1)
        slack = float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.1, 0.9))
        window = window_around(box * scale, size, config.object_crop, slack)
        image = cut_image(resize(self.read_image(index), *size), window)
        return image, cut_instances(self.objects.instances(row, original, size), window)

    def replaced(self) -> list[int]:
        """The indices of the images that could not be read in training so far, and were replaced by others."""
        return np.flatnonzero(self._unreadable.numpy()).tolist()

    def report(self) -> str | None:
        """One line on what was wrong with annotations and, so far, images; None if nothing was."""
        lines = [text] if (text := self.problems.summary()) else []
        if bad := self.replaced():
            lines.append(f"{len(bad)} unreadable images were replaced by others (first: {self.path(bad[0])})")
        return f"{self.json_path}: " + "; ".join(lines) if lines else None
