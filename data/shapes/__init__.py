"""The built-in data set: textured scenes of ten classes, drawn on the fly, with exact outlines.

A picture follows from (seed, split, index) alone, but for single levels of grey that versions of OpenCV round
otherwise. Its objects have sharp corners, thin parts, bays, holes and curved outlines, and hide each other, so that
some are seen in several parts. The ground truth is analytic: ``rings`` is the exact outline of the visible part, cut
where other objects and the border of the image cut it, and the mask holds the pixels whose centre lies inside it.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pycocotools import mask as coco_mask

from data.annotations import Annotations, Category, Entry
from data.config import DataConfig
from data.shapes.outlines import CLASSES
from data.shapes.regions import signed_area
from data.shapes.scene import ShapeObject, draw
from data.transforms import (
    Crop,
    Instances,
    Sample,
    drop_empty,
    flip_image,
    flip_instances,
    make_target,
    to_tensor,
    trim,
)
from sharpcontour.errors import InputError
from sharpcontour.host import Target, TargetBuilder

MIN_SIZE = 64  # px: in smaller pictures the smallest objects have no corners left
SPLITS = ("train", "val")
_AUGMENTATION = 7  # keeps the random numbers of the augmentation apart from those of the pictures


class ShapesDataset:
    """A split of the shapes set; samples as in ``data/__init__.py``.

    Args:
        config: ``shapes_size``, the number of images, ``seed`` and ``flip`` are used. The validation pictures do not
            depend on the seed.
        split: "train" or "val".
        prepare: what the model adds to every training target.
    """

    settings: ClassVar = frozenset(
        {"seed", "flip", "workers", "shapes_size", "train_images_count", "val_images_count"}
        | {"test_short_side", "test_max_side", "resize"}  # for predicting other images
    )

    def __init__(self, config: DataConfig, split: str, prepare: TargetBuilder | None = None) -> None:
        if config.shapes_size < MIN_SIZE:
            raise InputError(f"data.shapes_size={config.shapes_size}: choose at least {MIN_SIZE} px")
        self.config, self.split, self.prepare = config, split, prepare
        self.category_ids = list(range(1, len(CLASSES) + 1))
        self.categories: list[Category] = [
            {"id": k, "name": name} for k, name in zip(self.category_ids, CLASSES, strict=True)
        ]
        self._length = config.train_images_count if split == "train" else config.val_images_count
        if self._length < 1:
            raise InputError(f"data.{split}_images_count={self._length}: choose at least 1")

    def __len__(self) -> int:
        return self._length

    def scene(self, index: int) -> tuple[np.ndarray, list[ShapeObject]]:
        """The picture (H, W, 3) uint8 RGB of an index, and its objects, the foremost first."""
        seed = self.config.seed if self.split == "train" else 0
        return draw(np.random.default_rng((seed, SPLITS.index(self.split), index)), self.config.shapes_size)

    def read_image(self, index: int) -> np.ndarray:
        """The picture (H, W, 3) uint8 RGB of an index."""
        return self.scene(index)[0]

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        image, objects = self.scene(index)
        size = (self.config.shapes_size, self.config.shapes_size)
        if epoch < 0:
            target: Target = {"image_id": index + 1, "size": size, "original_size": size}
            return {"image": to_tensor(image), "target": target}
        rng = np.random.default_rng((self.config.seed, epoch, index, _AUGMENTATION))
        instances = drop_empty(_instances(objects), *size)
        if rng.random() < self.config.flip:
            image, instances = flip_image(image), flip_instances(instances, size[1])
        return {"image": to_tensor(image), "target": make_target(index + 1, size, instances, self.prepare, rng)}

    def aspect_groups(self) -> np.ndarray:
        """The orientation of each image, (len,), all 0: the images are square."""
        return np.zeros(len(self), np.int64)

    def ground_truth(self) -> Annotations:
        """The split in COCO's format, the masks as compressed RLE."""
        size = self.config.shapes_size
        images: list[Entry] = []
        annotations: list[Entry] = []
        for index in range(len(self)):
            name = f"shapes_{self.split}_{index:06d}.png"
            images.append({"id": index + 1, "file_name": name, "height": size, "width": size})
            for shape in self.scene(index)[1]:
                annotations.append(_annotation(shape, len(annotations) + 1, index + 1, size))
        return {"images": images, "annotations": annotations, "categories": self.categories}

    def report(self) -> None:
        """Nothing can be wrong with drawn pictures."""
        return None


def _box(shape: ShapeObject) -> np.ndarray:
    points = np.concatenate(shape.rings)
    return np.concatenate([points.min(0), points.max(0)])


def _instances(objects: list[ShapeObject]) -> Instances:
    outer = [sum(signed_area(ring.astype(np.float64)) > 0 for ring in shape.rings) for shape in objects]
    return Instances(
        np.array([_box(shape) for shape in objects], np.float32).reshape(-1, 4),
        np.array([shape.label for shape in objects], np.int64),
        [shape.rings for shape in objects],
        [trim(Crop(shape.x0, shape.y0, shape.mask.astype(np.uint8))) for shape in objects],
        np.array(outer, np.int64),
    )


def _annotation(shape: ShapeObject, annotation_id: int, image_id: int, size: int) -> Entry:
    full = np.zeros((size, size), np.uint8, order="F")
    h, w = shape.mask.shape
    full[shape.y0 : shape.y0 + h, shape.x0 : shape.x0 + w] = shape.mask
    rle = coco_mask.encode(full)
    x0, y0, x1, y1 = (float(value) for value in _box(shape).clip(0, size))
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": shape.label + 1,
        "segmentation": {"size": [size, size], "counts": rle["counts"].decode("ascii")},
        "area": float(np.count_nonzero(shape.mask)),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
    }
