"""Which images a run sees, and how they are resized and augmented."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Resize = Literal["opencv", "detectron2", "torchvision", "mmcv"]
"""Ways to resize an image, see :func:`data.transforms.resize_image`."""


@dataclass
class DataConfig:
    """Settings of data set and input; the defaults are the built-in shapes, the sizes those of COCO recipes."""

    # In data.DATASETS. shapes: drawn on the fly; coco: any COCO-format set; the others differ in their folders only,
    # see LAYOUTS in data/coco_split.py: photos has train.json, val.json and images/ below its root.
    name: str = "shapes"
    root: str = ""  # folder of the data set
    train_json: str = ""  # annotation file that replaces the one under root
    train_images: str = ""  # folder of its images
    val_json: str = ""  # annotation file for evaluation that replaces the one under root
    val_images: str = ""  # folder of its images
    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)  # px, training: one is drawn for every image
    max_side: int = 1333  # px, cap of the longer side in training
    test_short_side: int = 800  # px, in evaluation
    test_max_side: int = 1333  # px
    resize: Resize = "opencv"  # see data/transforms.py; the models' own ways, where bits matter
    object_crop: int = 0  # px, side of a square around a random object that is all a model sees in training; 0: off
    object_share: tuple[float, float] = (0.3, 0.9)  # of that side, from and to: the object's longer side
    colour: float = 0.0  # how much brightness, contrast and saturation change in training; 0: not at all, 1: a lot
    flip: float = 0.5  # probability of a horizontal flip in training
    keep_empty: bool = True  # train on images without objects too, as DANCE does; off: drop them, as detectors do
    max_unreadable: float = 0.001  # share of the training images that may be unreadable, at least one
    workers: int = 2  # loader processes of each training process; 0: load in the training process itself
    seed: int = 0  # of the drawn training images and of the augmentation
    shapes_size: int = 192  # px, side of the drawn images; they are used as they are, not resized
    train_images_count: int = 20_000  # drawn images in the training split
    val_images_count: int = 200  # drawn images in the validation split; the same ones whatever the seed

    def at_test_size(self) -> DataConfig:
        """The same with training images as evaluation sees them: whole, of its size, their colours, not flipped."""
        size = (self.test_short_side,)
        return replace(self, short_sides=size, max_side=self.test_max_side, object_crop=0, colour=0.0, flip=0.0)
