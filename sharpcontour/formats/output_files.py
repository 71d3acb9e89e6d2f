"""Refined objects as files: COCO JSON, SVG, a mask as PNG, and a picture of before and after.

Each is written whole or not at all. All coordinates are continuous pixels of the photograph, x to the right and y down,
the pixel in column j, row i covering [j, j+1) x [i, i+1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask

from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.formats.named_masks import NamedMask
from sharpcontour.io.files import save_results, write_whole
from sharpcontour.masks.run_lengths import RLE, counts_of
from sharpcontour.masks.segmentation import rle_of_polygons
from sharpcontour.pictures.comparison import compare
from sharpcontour.pictures.drawing import save
from sharpcontour.pictures.panels import PALETTE

DECIMALS = 3  # of coordinates in files
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # characters that XML cannot hold


def write_coco(path: str | Path, found: Detections, given: Sequence[NamedMask], image: str) -> None:
    """Write K objects of one photograph as COCO annotations.

    The file has "images", with one entry: "id" 1, "file_name", "width" and "height" in pixels; "categories": "id" and
    "name", as the given files had them, "object" for what has none; and "annotations", one an object in the order in
    which they were given: "id" 1 to K, "image_id" 1, "category_id", "name" (what the given file calls it; not part of
    COCO's format), "segmentation", "area" in pixels, "bbox" [x, y, width, height] around the pixels, "iscrowd" 0 or 1,
    and "score" where the given file had one. The segmentation is a list of polygons [x0, y0, x1, y1, ...] where their
    union has exactly the object's pixels; of an object with holes, a crowd, and an empty one, it is compressed run
    lengths, for COCO's polygons have no holes.

    Args:
        path: of the file.
        found: the objects.
        given: their names and categories.
        image: name of the photograph's file.

    Raises:
        InputError: where it cannot be written.
    """
    height, width = found.size
    ids = _category_ids(given)
    annotations = [
        {
            "id": k,
            "image_id": 1,
            "category_id": ids[mask.category or "object"],
            "name": mask.name,
            "segmentation": rle if mask.crowd else _segmentation(rings, rle),
            "area": int(coco_mask.area(rle)),
            "bbox": coco_mask.toBbox(rle).tolist(),
            "iscrowd": int(mask.crowd),
            **({} if mask.score is None else {"score": mask.score}),
        }
        for k, (rings, rle, mask) in enumerate(zip(found.rings, found.rles(), given, strict=True), 1)
    ]
    images = [{"id": 1, "file_name": image, "width": width, "height": height}]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    save_results({"images": images, "categories": categories, "annotations": annotations}, path)


def _category_ids(given: Sequence[NamedMask]) -> dict[str, int]:
    """A number for each category: its own where no other has taken it, of the rest the next ones."""
    ids: dict[str, int] = {}
    for mask in given:
        if mask.category_id is not None and mask.category_id not in ids.values():
            ids.setdefault(mask.category or "object", mask.category_id)
    for mask in given:
        ids.setdefault(mask.category or "object", max(ids.values(), default=0) + 1)
    return ids


def _segmentation(rings: Rings, rle: RLE) -> Any:
    """Polygons if they have exactly the pixels of the RLE, else that itself."""
    usable = [ring.astype(np.float64) for ring in rings if len(ring) >= 3 and np.isfinite(ring).all()]
    for rounded in ([ring.round(DECIMALS) for ring in usable], usable):
        polygons = [ring.ravel().tolist() for ring in rounded]
        if polygons and counts_of(rle_of_polygons(polygons, *rle["size"])) == counts_of(rle):
            return polygons
    return rle


def write_svg(path: str | Path, found: Detections, given: Sequence[NamedMask]) -> None:
    """Write K objects as an SVG image of the photograph's size: lay it over the photograph.

    An object is a path with the id "object-1" to "object-K", its rings under the even-odd rule, so that holes stay
    open; its name is the path's title and its category the attribute "data-category".

    Args:
        path: of the file.
        found: the objects.
        given: their names and categories.

    Raises:
        InputError: where it cannot be written.
    """
    height, width = found.size
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
    ]
    for k, (rings, mask) in enumerate(zip(found.rings, given, strict=True)):
        colour = "#{:02x}{:02x}{:02x}".format(*PALETTE[k % len(PALETTE)])
        category = f' data-category="{_text(mask.category)}"' if mask.category else ""
        lines.append(
            f'<path id="object-{k + 1}"{category} fill-rule="evenodd" fill="{colour}" fill-opacity="0.35" '
            f'stroke="{colour}" stroke-width="1" vector-effect="non-scaling-stroke" d="{_path(rings)}">'
            f"<title>{_text(mask.name)}</title></path>"
        )
    write_whole("\n".join([*lines, "</svg>", ""]).encode(), path)


def _path(rings: Rings) -> str:
    usable = [ring for ring in rings if len(ring) >= 3 and np.isfinite(ring).all()]
    return " ".join("M" + "L".join(f"{_number(x)},{_number(y)}" for x, y in ring.tolist()) + "Z" for ring in usable)


def _number(value: float) -> str:
    return f"{value:.{DECIMALS}f}".rstrip("0").rstrip(".")


def _text(value: str) -> str:
    """Text for XML; what it cannot hold, such as bytes of a name that is not UTF-8, becomes question marks."""
    return escape(_NO_XML.sub("?", value))


def write_mask(path: str | Path, found: Detections) -> None:
    """Write K objects as a PNG of the photograph's size.

    One object is 255 on 0; of several, object k is the number k of 1 to K on 0, in 16 bits where K is over 255. Where
    objects overlap, the one that was given first is seen.

    Args:
        path: of the file.
        found: the objects.

    Raises:
        InputError: for more than 65535 objects, and where it cannot be written.
    """
    if len(found) > np.iinfo(np.uint16).max:
        raise InputError(f"{path}: a PNG has no numbers for {len(found)} objects; refine fewer at once")
    pixels = np.zeros(found.size, np.uint8 if len(found) <= 255 else np.uint16)
    for k, rle in reversed(list(enumerate(found.rles(), 1))):
        pixels[coco_mask.decode(rle).astype(bool)] = 255 if len(found) == 1 else k
    write_whole(cv2.imencode(".png", pixels)[1].tobytes(), path)


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
    assert found.coarse is not None
    names = torch.arange(len(found))  # each object has a label of its own
    before, after = replace(found.coarse, labels=names), replace(found, labels=names)
    titles = ("as given", "refined")
    save(path, compare(image, before, after, [mask.name for mask in given], titles=titles, scores=False))
