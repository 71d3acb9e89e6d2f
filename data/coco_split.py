"""A split of any instance segmentation data set in COCO's format: one JSON file and a folder of images.

Coordinates refer to the pixels as they are stored: a rotation noted in EXIF is ignored, as COCO's annotations do.
What reads and checks a data set stands here, apart from the samples of ``data/coco.py``: it needs no torch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.annotation_cache import packed_annotations
from data.annotations import Annotations, read_coco
from data.config import DataConfig
from sharpcontour.errors import InputError
from sharpcontour.io.images import read_image

LAYOUTS = {
    "coco": ("annotations/instances_{split}2017.json", "{split}2017"),
    "cityscapes": ("annotations/instances_{split}.json", "leftImg8bit/{split}"),
    "lvis": ("annotations/lvis_{split}.json", ""),
    "photos": ("{split}.json", "images"),
}
"""Where a data set has its annotations and its images, below its root. All annotations are in COCO's form."""


def files_below(root: str | Path, name: str, split: str) -> tuple[Path, Path]:
    """Annotation file and image folder of a split, "train" or "val", of one of :data:`LAYOUTS` below its root."""
    annotations, images = (Path(root) / part.format(split=split) for part in LAYOUTS[name])
    return annotations, images


class CocoSplit:
    """The annotations and the images of a split.

    Training leaves out crowd regions, objects without an area and, unless ``keep_empty`` is set, images without
    objects. Evaluation has all images of the file.

    Args:
        config: paths, and ``keep_empty``.
        split: "train" or "val".

    Raises:
        InputError: where files are missing or broken, and where there is no object to train on.
    """

    def __init__(self, config: DataConfig, split: str) -> None:
        self.config, self.split = config, split
        self.json_path, self.folder = _paths(config, split)
        # Numpy only: loader workers would copy Python objects page by page, by touching their counts.
        file = packed_annotations(self.json_path)
        self.categories, self.problems, self.objects = file.categories, file.problems, file.objects
        self.category_ids = [category["id"] for category in file.categories]
        usable: np.ndarray = np.ones(len(file.image_ids), bool)
        if split == "train":
            counts = np.diff(self.objects.first)
            if not counts.any():
                raise InputError(f"{self.json_path}: no object to train on: {file.why_nothing_trains()}")
            if not config.keep_empty:
                usable = counts > 0
        self._rows = np.flatnonzero(usable)
        self.image_ids, self.sizes, self._names = file.image_ids[usable], file.sizes[usable], file.names[usable]

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, index: int) -> Path:
        """The file of the image with an index."""
        return self.folder / self._names[index].decode("utf-8", "surrogatepass")

    def aspect_groups(self) -> np.ndarray:
        """The orientation of each image, (len,): 0 for upright and square ones, 1 for wide ones."""
        return (self.sizes[:, 1] > self.sizes[:, 0]).astype(np.int64)

    def read_image(self, index: int) -> np.ndarray:
        """The image (H, W, 3) uint8 RGB of an index.

        Raises:
            InputError: if it is missing, no image, cut short, or not of the annotated size.
        """
        size = (int(self.sizes[index, 0]), int(self.sizes[index, 1]))
        return read_image(self.path(index), size=size, said=f"its entry (image {self.image_ids[index]}) says")

    def ground_truth(self) -> Annotations:
        """The annotations of this split's images, crowd regions included, for evaluation; read anew from the file."""
        file = read_coco(self.json_path)
        present = set(self.image_ids.tolist())
        return {
            "images": [image for image in file.images if image["id"] in present],
            "annotations": [one for one in file.annotations if one["image_id"] in present],
            "categories": file.categories,
        }

    def missing(self) -> list[Path]:
        """The image files of this split that are not there."""
        return [path for path in map(self.path, range(len(self))) if not path.is_file()]


def _paths(config: DataConfig, split: str) -> tuple[Path, Path]:
    """Annotation file and image folder of a split."""
    json_path, folder = (
        (config.train_json, config.train_images) if split == "train" else (config.val_json, config.val_images)
    )
    if config.root:
        usual_json, usual_folder = files_below(config.root, config.name, split)
        json_path = json_path or str(usual_json)
        folder = folder or str(usual_folder)
    if not json_path or not folder:
        missing = f"--{split}-json" if not json_path else f"--{split}-images"
        raise InputError(f"no {split} data given: use --root DIR ({config.name}'s folders) or {missing}")
    if config.name in ("cityscapes", "lvis") and not Path(json_path).is_file():
        raise InputError(f"{json_path}: no such file; scripts/prepare_data.py {config.name} says how to make it")
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder of images; name another with --{split}-images DIR")
    return Path(json_path), Path(folder)
