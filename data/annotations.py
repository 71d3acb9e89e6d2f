"""Reading a COCO annotation file. Whatever is wrong with an annotation has a defined outcome and is counted.

Segmentations: a list of polygons (their union; no holes), compressed run lengths, or uncompressed ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sharpcontour.errors import InputError
from sharpcontour.io.files import read_json
from sharpcontour.masks.segmentation import to_rle, usable_part


@dataclass
class Problems:
    """How often each kind of problem was met, and where first."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def note(self, kind: str, where: str) -> None:
        """Count one; for the first of its kind also where it was."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.first.setdefault(kind, where)

    def summary(self) -> str | None:
        """One line for all kinds; None if there were none."""
        if not self.counts:
            return None
        return "; ".join(f"{count} x {kind} (first: {self.first[kind]})" for kind, count in self.counts.items())


@dataclass
class CocoFile:
    """A checked annotation file.

    Attributes:
        images: sorted by id; "id", "file_name", "width", "height" are there.
        annotations: in the file's order, with a valid "segmentation", "bbox", "area", "iscrowd" and an
            "id" that is positive and its own.
        categories: sorted by id.
        problems: what was dropped or mended.
    """

    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    problems: Problems


def read_coco(path: Path) -> CocoFile:
    """Read and check an annotation file.

    Raises:
        InputError: if it is missing, no JSON, or has no images or categories; one line with the place.
    """
    data = _read(path)
    problems = Problems()
    categories = _categories(path, data["categories"])
    images = _images(path, data["images"], problems)
    sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in images}
    names = {category["id"] for category in categories}
    annotations, used = [], set()
    highest = max((a["id"] for a in data["annotations"] if isinstance(a, dict) and _is_int(a.get("id"))), default=0)
    for position, annotation in enumerate(data["annotations"]):
        checked = _annotation(annotation, position, sizes, names, problems)
        if checked is None:
            continue
        if checked["id"] in used or checked["id"] < 1:
            problems.note("annotation without an id of its own, given a new one", f"annotation {checked['id']}")
            highest = max(highest, 0) + 1
            checked["id"] = highest
        used.add(checked["id"])
        annotations.append(checked)
    return CocoFile(images, annotations, categories, problems)


def _read(path: Path) -> dict[str, Any]:
    data = read_json(path, kind="annotation file; check the path or --root")
    if not isinstance(data, dict):
        raise InputError(f"{path}: not in COCO's form: expected an object with images, annotations and categories")
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise InputError(f"{path}: not in COCO's form: no list named {key!r}")
    return data


def _categories(path: Path, entries: list[Any]) -> list[dict[str, Any]]:
    categories = []
    for entry in entries:
        if not isinstance(entry, dict) or not _is_int(entry.get("id")):
            raise InputError(f"{path}: a category has no whole number as its id: {str(entry)[:80]}")
        more = {key: str(entry[key]) for key in ("frequency", "synset") if key in entry}  # LVIS
        categories.append({"id": entry["id"], "name": str(entry.get("name", entry["id"])), **more})
    categories.sort(key=lambda category: category["id"])
    ids = [category["id"] for category in categories]
    if len(set(ids)) != len(ids):
        raise InputError(f"{path}: category id {next(i for i in ids if ids.count(i) > 1)} is there twice")
    if not ids:
        raise InputError(f"{path}: the list of categories is empty")
    return categories


def _images(path: Path, entries: list[Any], problems: Problems) -> list[dict[str, Any]]:
    images: dict[int, dict[str, Any]] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not _is_int(entry.get("id")):
            raise InputError(f"{path}: an image has no whole number as its id: {str(entry)[:80]}")
        if "neg_category_ids" in entry and isinstance(entry.get("coco_url"), str):  # LVIS names files by their address
            entry["file_name"] = "/".join(entry["coco_url"].split("/")[-2:])
        if not isinstance(entry.get("file_name"), str):
            raise InputError(f"{path}: image {entry['id']} has no file_name")
        if not all(_is_int(entry.get(key)) and entry[key] > 0 for key in ("width", "height")):
            raise InputError(f"{path}: image {entry['id']} has no width and height in whole pixels; add them")
        if entry["id"] in images:
            problems.note("image id that is there twice, the later dropped", f"image {entry['id']}")
            continue
        images[entry["id"]] = entry
    if not images:
        raise InputError(f"{path}: the list of images is empty")
    return [images[i] for i in sorted(images)]


def _annotation(
    entry: Any, position: int, sizes: dict[int, tuple[int, int]], categories: set[int], problems: Problems
) -> dict[str, Any] | None:
    """A copy with all fields valid, or None; both are noted where something was wrong."""
    if not isinstance(entry, dict):
        problems.note("annotation that is no object, dropped", f"entry {position}")
        return None
    where = f"annotation {entry.get('id', f'at position {position}')}"
    image_id, category = entry.get("image_id"), entry.get("category_id")
    if not _is_int(image_id) or image_id not in sizes:
        problems.note("annotation of an unknown image, dropped", where)
        return None
    if not _is_int(category) or category not in categories:
        problems.note("annotation of an unknown category, dropped", where)
        return None
    size = sizes[image_id]
    segmentation, wrong = usable_part(entry.get("segmentation"), *size)
    if segmentation is None:
        problems.note(f"{wrong[-1]}, annotation dropped", where)
        return None
    for kind in wrong:
        problems.note(kind, where)
    checked = {**entry, "segmentation": segmentation, "iscrowd": int(bool(entry.get("iscrowd", 0)))}
    checked["id"] = entry["id"] if _is_int(entry.get("id")) else 0
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
        problems.note("box missing or not finite, taken from the segmentation", where)
        checked["bbox"] = [float(value) for value in segmentation_box(segmentation)]
    if not _is_finite(entry.get("area")):
        problems.note("area missing or not finite, taken from the segmentation", where)
        checked["area"] = float(coco_mask.area(to_rle(segmentation, *size)))
    return checked


def segmentation_box(segmentation: Any) -> np.ndarray:
    """x, y, width, height around a checked segmentation."""
    if isinstance(segmentation, dict):
        return coco_mask.toBbox(to_rle(segmentation, *segmentation["size"]))
    points = np.concatenate([np.array(polygon, np.float64).reshape(-1, 2) for polygon in segmentation])
    return np.concatenate([points.min(0), np.ptp(points, axis=0)])


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
