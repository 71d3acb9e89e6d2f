"""Cityscapes' fine annotations as COCO annotations.

Every distinct value of ``*_gtFine_instanceIds.png`` from 24 on is a region: from 1000 on one object of the class
``value // 1000``, below it a group of objects that nobody separated (a crowd). Masks are the pixels themselves.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from data.annotations import Annotations, Category, Entry
from sharpcontour.errors import InputError
from sharpcontour.io.images import read_values
from sharpcontour.masks.run_lengths import RLE, crop_to_rle

CLASSES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""Label ids of the classes that are learned and scored."""
VOID = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
"""Values of pixels that excuse a detection. Single caravans and trailers (29000 and up) are none of them."""
SUFFIX = "_gtFine_instanceIds.png"


def convert(folder: Path, progress: bool = False) -> Annotations:
    """COCO annotations of a split.

    Category ids are Cityscapes' label ids. An image's "file_name" is its path below the split's folder of leftImg8bit,
    its "void" an RLE of the pixels that excuse a detection.

    Args:
        folder: ``gtFine/train`` or ``gtFine/val``, with a folder for each city.
        progress: show a bar, if there is a terminal to show it.

    Raises:
        InputError: where there are no annotations, or one cannot be read.
    """
    paths = sorted(folder.glob(f"*/*{SUFFIX}"))
    if not paths:
        raise InputError(f"{folder}: no */*{SUFFIX} in it; give gtFine/train or gtFine/val of Cityscapes")
    images: list[Entry] = []
    annotations: list[Entry] = []
    with ThreadPoolExecutor() as pool:
        results = zip(paths, pool.map(read_regions, paths), strict=True)
        disable = None if progress else True
        for path, (size, void, regions) in tqdm(results, folder.name, len(paths), unit="image", disable=disable):
            key = len(images) + 1
            name = f"{path.parent.name}/{path.name.removesuffix(SUFFIX)}_leftImg8bit.png"
            images.append({"id": key, "file_name": name, "height": size[0], "width": size[1], "void": void})
            annotations += [one | {"id": len(annotations) + n, "image_id": key} for n, one in enumerate(regions, 1)]
    categories: list[Category] = [{"id": key, "name": name} for key, name in CLASSES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def read_regions(path: Path) -> tuple[tuple[int, int], RLE, list[Entry]]:
    """(height, width), the void pixels, and annotations without ids of one ``*_instanceIds.png``."""
    mend = "is no image of 16 bits and one channel; unpack gtFine_trainvaltest.zip again"
    try:
        values = read_values(path)
    except InputError as error:
        raise InputError(f"{error}: {mend}") from error
    if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: {mend}")
    height, width = values.shape
    present = np.flatnonzero(np.bincount(values.ravel().astype(np.int64)))
    labels = np.where(present >= 1000, present // 1000, present)
    chosen = present[np.isin(labels, list(CLASSES))]
    number = np.zeros(int(present[-1]) + 1, np.int32)
    number[chosen] = np.arange(1, len(chosen) + 1)
    numbers = number[values]
    from scipy.ndimage import find_objects  # here: it takes longer to import than all else that a --help needs

    regions = []
    for index, (value, box) in enumerate(zip(chosen.tolist(), find_objects(numbers, len(chosen)), strict=True), 1):
        mask, (y0, x0) = numbers[box] == index, (box[0].start, box[1].start)
        regions.append(
            {
                "category_id": value // 1000 if value >= 1000 else value,
                "iscrowd": int(value < 1000),
                "area": int(mask.sum()),
                "bbox": [x0, y0, mask.shape[1], mask.shape[0]],
                "segmentation": crop_to_rle(mask, x0, y0, height, width),
            }
        )
    void = coco_mask.encode(np.asfortranarray(np.isin(values, VOID).astype(np.uint8)))
    return (height, width), {"size": [height, width], "counts": void["counts"].decode("ascii")}, regions
