"""Any instance segmentation data set in COCO's format: one JSON file and a folder of images.

Coordinates refer to the pixels as they are stored: a rotation noted in EXIF is ignored, as COCO's annotations do.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from data.annotations import Annotations, read_coco
from data.config import DataConfig
from data.packed import PackedObjects
from data.shapes import ShapesDataset
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
from sharpcontour.host import Target, TargetBuilder
from sharpcontour.io.images import read_image

MOST_ENLARGED = 3.0  # times, of an image whose object is small
LISTED = 10  # unreadable images named in a message

LAYOUTS = {
    "coco": ("annotations/instances_{split}2017.json", "{split}2017"),
    "cityscapes": ("annotations/instances_{split}.json", "leftImg8bit/{split}"),
    "lvis": ("annotations/lvis_{split}.json", ""),
    "photos": ("{split}.json", "images"),
}
"""Where a data set has its annotations and its images, below its root. All annotations are in COCO's form."""


class CocoDataset:
    """A split of a COCO-format set; samples as in ``data/__init__.py``.

    Training leaves out crowd regions, objects without an area and, unless ``keep_empty`` is set, images without
    objects. Evaluation has all images of the file. An unreadable image is replaced by the next one in training, up to
    ``max_unreadable`` of all; in evaluation its sample is an ImageError, and the loader leaves it out.

    Args:
        config: paths, sizes and augmentation.
        split: "train" or "val".
        prepare: what the model adds to every training target.
    """

    settings: ClassVar = frozenset(
        field.name for field in dataclasses.fields(DataConfig) if field.name not in ("name", *ShapesDataset.settings)
    ) | {"seed", "flip", "workers", "test_short_side", "test_max_side", "resize"}

    def __init__(self, config: DataConfig, split: str, prepare: TargetBuilder | None = None) -> None:
        self.config, self.split, self.prepare = config, split, prepare
        self.json_path, self.folder = _paths(config, split)
        file = read_coco(self.json_path)
        self.categories, self.problems = file.categories, file.problems
        self.category_ids = [category["id"] for category in file.categories]
        self.objects = PackedObjects(file)
        usable: np.ndarray = np.ones(len(file.images), bool)
        if split == "train":
            counts = np.diff(self.objects.first)
            if not counts.any():
                raise InputError(f"{self.json_path}: no object to train on: {file.why_nothing_trains()}")
            if not config.keep_empty:
                usable = counts > 0
        images = [file.images[row] for row in np.flatnonzero(usable)]
        # Numpy and torch only from here on: workers would copy Python objects page by page, by touching their counts.
        self._rows = np.flatnonzero(usable)
        self.image_ids = np.array([image["id"] for image in images], np.int64)
        self.sizes = np.array([(image["height"], image["width"]) for image in images], np.int64)
        self._names = np.array([image["file_name"].encode("utf-8", "surrogatepass") for image in images])
        self._unreadable = torch.zeros(len(images), dtype=torch.uint8).share_memory_()  # marked by all workers

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, index: int) -> Path:
        """The file of the image with an index."""
        return self.folder / self._names[index].decode("utf-8", "surrogatepass")

    def aspect_groups(self) -> np.ndarray:
        """The orientation of each image, (len,): 0 for upright and square ones, 1 for wide ones."""
        return (self.sizes[:, 1] > self.sizes[:, 0]).astype(np.int64)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        if epoch < 0:
            return self._evaluation_sample(index)
        while True:
            if self._unreadable[index]:
                index = self._replacement(index)
            try:
                return self._training_sample(epoch, index)
            except InputError as error:
                self._unreadable[index] = 1
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
        bad = torch.nonzero(self._unreadable)[:, 0].tolist()
        allowed = max(1, int(self.config.max_unreadable * len(self)))
        if len(bad) > allowed:
            names = ", ".join(str(self.path(i)) for i in bad[:LISTED]) + (", ..." if len(bad) > LISTED else "")
            raise InputError(
                f"{len(bad)} unreadable training images, {allowed} allowed (data.max_unreadable): {names}; "
                f"mend or remove them. The last: {error}"
            )

    def read_image(self, index: int) -> np.ndarray:
        """The image (H, W, 3) uint8 RGB of an index.

        Raises:
            InputError: if it is missing, no image, cut short, or not of the annotated size.
        """
        size = (int(self.sizes[index, 0]), int(self.sizes[index, 1]))
        return read_image(self.path(index), size=size, said=f"its entry (image {self.image_ids[index]}) says")

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

    def ground_truth(self) -> Annotations:
        """The annotations of this split's images, crowd regions included, for evaluation; read anew from the file."""
        file = read_coco(self.json_path)
        present = set(self.image_ids.tolist())
        return {
            "images": [image for image in file.images if image["id"] in present],
            "annotations": [one for one in file.annotations if one["image_id"] in present],
            "categories": file.categories,
        }

    def replaced(self) -> int:
        """How many images could not be read in training so far, and were replaced by others."""
        return int(self._unreadable.sum())

    def missing(self) -> list[Path]:
        """The image files of this split that are not there."""
        return [path for path in map(self.path, range(len(self))) if not path.is_file()]

    def report(self) -> str | None:
        """One line on what was wrong with annotations and, so far, images; None if nothing was."""
        lines = [text] if (text := self.problems.summary()) else []
        if bad := torch.nonzero(self._unreadable)[:, 0].tolist():
            lines.append(f"{len(bad)} unreadable images were replaced by others (first: {self.path(bad[0])})")
        return f"{self.json_path}: " + "; ".join(lines) if lines else None


def _paths(config: DataConfig, split: str) -> tuple[Path, Path]:
    """Annotation file and image folder of a split."""
    json_path, folder = (
        (config.train_json, config.train_images) if split == "train" else (config.val_json, config.val_images)
    )
    if config.root:
        usual_json, usual_folder = (part.format(split=split) for part in LAYOUTS[config.name])
        json_path = json_path or str(Path(config.root) / usual_json)
        folder = folder or str(Path(config.root) / usual_folder)
    if not json_path or not folder:
        missing = f"--{split}-json" if not json_path else f"--{split}-images"
        raise InputError(f"no {split} data given: use --root DIR ({config.name}'s folders) or {missing}")
    if config.name in ("cityscapes", "lvis") and not Path(json_path).is_file():
        raise InputError(f"{json_path}: no such file; scripts/prepare_data.py {config.name} says how to make it")
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder of images")
    return Path(json_path), Path(folder)
