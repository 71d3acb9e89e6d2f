"""Refined objects as files of every kind that :data:`FORMATS` names; COCO JSON, PNG and the picture are written here.

Each is written whole or not at all. All coordinates are continuous pixels of the photograph, x to the right and y down,
the pixel in column j, row i covering [j, j+1) x [i, i+1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.formats.cvat import write_cvat
from sharpcontour.formats.label_studio import write_brushes, write_polygons
from sharpcontour.formats.labelme import write_labelme
from sharpcontour.formats.mask_images import MANY
from sharpcontour.formats.named_masks import NamedMask
from sharpcontour.formats.other_fields import COCO, held
from sharpcontour.formats.outlines import (
    DECIMALS,
    class_of,
    counted,
    holes_and_parts,
    parts_in_file,
)
from sharpcontour.formats.svg import write_svg
from sharpcontour.formats.yolo import write_yolo
from sharpcontour.io.files import save_results, write_whole
from sharpcontour.masks.run_lengths import RLE, counts_of
from sharpcontour.masks.segmentation import rle_of_polygons
from sharpcontour.pictures.comparison import compare
from sharpcontour.pictures.drawing import save


def write_coco(
    path: str | Path, found: Detections, given: Sequence[NamedMask], image: str, kind: str = "both"
) -> list[str]:
    """Write K objects of one photograph as COCO annotations.

    The file has "images", with one entry: "id" 1, "file_name", "width" and "height" in pixels; "categories": "id" and
    "name", as the given files had them, "object" for what has none; and "annotations", one an object in the order in
    which they were given: "id" 1 to K, "image_id" 1, "category_id", "name" (what the given file calls it; not part of
    COCO's format), "segmentation", "area" in pixels, "bbox" [x, y, width, height] around the pixels, "iscrowd" 0 or 1,
    and "score" where the given file had one. Further fields of objects that come from a file of COCO are kept.

    Args:
        path: of the file.
        found: the objects.
        given: their names and categories.
        image: name of the photograph's file.
        kind: of the segmentations. "both": a list of polygons [x0, y0, x1, y1, ...] where their union has exactly the
            object's pixels; of an object with holes, a crowd, and an empty one, compressed run lengths, for COCO's
            polygons have no holes. "rle": run lengths of all. "polygons": polygons of all but crowds, one a part, in
            which holes are cut open by a bridge to the outline, an edge that is walked there and back; by COCO's own
            routine they have exactly the object's pixels.

    Returns:
        What is not held as it is, a line each.

    Raises:
        InputError: where it cannot be written.
    """
    height, width = found.size
    ids = _category_ids(given)
    rles = found.rles()
    segmentations = [
        rle if mask.crowd or kind == "rle" else (polygons_or_runs if kind == "both" else _polygons)(rings, rle)
        for rings, rle, mask in zip(found.rings, rles, given, strict=True)
    ]
    annotations = [
        {
            "id": k,
            "image_id": 1,
            "category_id": ids[class_of(mask), mask.category_id],
            "name": mask.name,
            "segmentation": segmentation,
            "area": int(coco_mask.area(rle)),
            "bbox": coco_mask.toBbox(rle).tolist(),
            "iscrowd": int(mask.crowd),
            **({} if mask.score is None else {"score": mask.score}),
            **held(mask, COCO),
        }
        for k, (segmentation, rle, mask) in enumerate(zip(segmentations, rles, given, strict=True), 1)
    ]
    images = [{"id": 1, "file_name": image, "width": width, "height": height}]
    names = {number: name for (name, _), number in ids.items()}  # several keys may share a number
    categories = [{"id": number, "name": name} for number, name in names.items()]
    save_results({"images": images, "categories": categories, "annotations": annotations}, path)
    cut = [rings for rings, one in zip(found.rings, segmentations, strict=True) if isinstance(one, list) and one]
    holes = holes_and_parts(cut)[0] if kind == "polygons" else 0
    return [f"{counted(holes, 'hole')} cut open by a bridge to the outline, for polygons have none"] if holes else []


def _category_ids(given: Sequence[NamedMask]) -> dict[tuple[str, int | None], int]:
    """A number for each category, by its name and the number that it has in its file.

    This number itself where no other category has taken it, else that of the first of its name, else the next one.
    """
    keys = list(dict.fromkeys((class_of(mask), mask.category_id) for mask in given))
    ids: dict[tuple[str, int | None], int] = {}
    of_name: dict[str, int] = {}
    for name, number in keys:
        if number is not None and number not in ids.values():
            ids[name, number] = number
            of_name.setdefault(name, number)
    for key in keys:
        if key not in ids:
            ids[key] = of_name.setdefault(key[0], max(ids.values(), default=0) + 1)
    return ids


def polygons_or_runs(rings: Rings, rle: RLE) -> Any:
    """An object's rings as COCO polygons if their union has exactly the pixels of the RLE, else that itself."""
    usable = [ring.astype(np.float64) for ring in rings if len(ring) >= 3 and np.isfinite(ring).all()]
    for rounded in ([ring.round(DECIMALS) for ring in usable], usable):
        polygons = [ring.ravel().tolist() for ring in rounded]
        if polygons and counts_of(rle_of_polygons(polygons, *rle["size"])) == counts_of(rle):
            return polygons
    return rle


def _polygons(rings: Rings, rle: RLE) -> Any:
    return [part.ravel().tolist() for part in parts_in_file(rings, rle)]


def write_mask(path: str | Path, found: Detections) -> list[str]:
    """Write K objects as a PNG of the photograph's size.

    One object is 255 on 0; of several, object k is the number k of 1 to K on 0, in 16 bits where K is over 64, for many
    values of 8 bits are taken for a soft mask when they are read. Where objects overlap, the one that was given first
    is seen.

    Args:
        path: of the file.
        found: the objects.

    Returns:
        What the picture does not show, a line each.

    Raises:
        InputError: for more than 65535 objects, and where it cannot be written.
    """
    if len(found) > np.iinfo(np.uint16).max:
        raise InputError(f"{path}: a PNG has no numbers for {len(found)} objects; refine fewer at once")
    pixels = np.zeros(found.size, np.uint8 if len(found) <= MANY else np.uint16)
    rles = found.rles()
    for k, rle in reversed(list(enumerate(rles, 1))):
        pixels[coco_mask.decode(rle).astype(bool)] = 255 if len(found) == 1 else k
    write_whole(cv2.imencode(".png", pixels)[1].tobytes(), path)
    hidden = sum(int(coco_mask.area(rle)) for rle in rles) - np.count_nonzero(pixels)
    unseen = len(found) - np.count_nonzero(np.unique(pixels)) if len(found) > 1 else 0
    lines = [f"{counted(hidden, 'pixel')} where objects overlap; the one given first is seen"] if hidden else []
    return lines + ([f"{counted(unseen, 'object')} without a pixel that is seen"] if unseen else [])


def write_picture(path: str | Path, image: np.ndarray, found: Detections, given: Sequence[NamedMask]) -> None:
    """Write a PNG with the given outlines on the left, the refined on the right, and the largest moves close up.

    Args:
        path: of the file.
        image: the photograph, (H, W, 3) uint8 RGB.
        found: the objects, ``coarse`` set.
        given: their names.

    Raises:
        InputError: where it cannot be written.
    """
    import torch  # here: --help needs the names of the formats, and no torch

    assert found.coarse is not None
    names = torch.arange(len(found))  # each object has a label of its own
    before, after = replace(found.coarse, labels=names), replace(found, labels=names)
    titles = ("as given", "refined")
    save(path, compare(image, before, after, [mask.name for mask in given], titles=titles, scores=False))


Writer = Callable[[Path, Detections, Sequence[NamedMask], Path], list[str]]

FORMATS: dict[str, tuple[str, Writer]] = {
    "coco": (".json", lambda path, found, given, photo: write_coco(path, found, given, photo.name)),
    "coco-rle": ("_rle.json", lambda path, found, given, photo: write_coco(path, found, given, photo.name, "rle")),
    "coco-polygons": (
        "_polygons.json",
        lambda path, found, given, photo: write_coco(path, found, given, photo.name, "polygons"),
    ),
    "labelme": ("_labelme.json", write_labelme),
    "cvat": ("_cvat.xml", write_cvat),
    "label-studio": ("_label_studio.json", write_brushes),
    "label-studio-polygons": ("_label_studio_polygons.json", write_polygons),
    "yolo": (".txt", write_yolo),
    "svg": (".svg", write_svg),
    "png": ("_mask.png", lambda path, found, given, photo: write_mask(path, found)),
}
"""By the names that a user types: what is put behind the photograph's name, and what writes the file."""
