"""Reading a COCO annotation file. Whatever is wrong with an annotation has a defined outcome and is counted.

Segmentations: a list of polygons (their union; no holes), compressed run lengths, or uncompressed ones. Whole numbers
that a tool wrote as text or with a decimal point are understood.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from pycocotools import mask as coco_mask

from data.agreement import UNITS, XYWH, disagreement, in_unit_square
from sharpcontour.errors import InputError
from sharpcontour.formats.coco_fields import OF_CVAT, is_mask_of_cvat, whole_number
from sharpcontour.io.long_json import LongList, read_long_json
from sharpcontour.masks.segmentation import to_rle, usable_part

Id = int | str
"""What a file calls an image, a category or an annotation by."""

Entry = dict[str, Any]
"""An entry of a list in a COCO file, with whatever keys that file has."""


class Category(TypedDict, total=False):
    """A class of a data set."""

    id: int
    name: str
    frequency: str  # LVIS: "r", "c" or "f", of rare, common and frequent ones
    synset: str  # LVIS: the meaning, as WordNet names it


class Annotations(TypedDict):
    """The contents of a COCO annotation file."""

    images: list[Entry]
    annotations: list[Entry]
    categories: list[Category]


OTHER_FORM = "whole number written as text or with a decimal point, understood"  # a kind of problem
FLAGS = ("iscrowd", "ignore")  # fields of an annotation that are 0 or 1
_USUAL = {int, type(None)}  # types of fields that hold a whole number, or nothing


@dataclass
class Problems:
    """Counts of each kind of problem in a file, and where each was met first."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def note(self, kind: str, where: str, count: int = 1) -> None:
        """Count problems of one kind; of the first of this kind also keep where it was."""
        self.counts[kind] = self.counts.get(kind, 0) + count
        self.first.setdefault(kind, where)

    def lines(self) -> list[str]:
        """All kinds of problems with their counts, each in a line."""
        return [f"{count} x {kind} (first: {self.first[kind]})" for kind, count in self.counts.items()]

    def include(self, others: Problems) -> None:
        """Count what was met later, too."""
        for kind, count in others.counts.items():
            self.note(kind, others.first[kind], count)

    def summary(self) -> str | None:
        """All kinds of problems with their counts in one line; None if there were none."""
        return "; ".join(self.lines()) or None


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

    images: list[Entry]
    annotations: Iterable[Entry]
    categories: list[Category]
    problems: Problems


def read_coco(path: Path) -> CocoFile:
    """Read and check an annotation file.

    Raises:
        InputError: if it is missing, no JSON, or has no images or categories; one line with the place.
    """
    file = open_coco(path)
    return replace(file, annotations=list(file.annotations))


def open_coco(path: Path) -> CocoFile:
    """Read and check an annotation file whose annotations are read and checked when one goes through them, once.

    Those of a large file are never in memory all together, and its problems are complete after the last one.

    Raises:
        InputError: see :func:`read_coco`; where a large file is no JSON, while one goes through it.
    """
    data = _read(path)
    problems = Problems()
    categories = _categories(path, _entries(data["categories"]), problems)
    images = _images(path, _entries(data["images"]), problems)
    return CocoFile(images, _annotations(data["annotations"], images, categories, problems), categories, problems)


def _annotations(
    entries: list[object] | LongList, images: list[Entry], categories: list[Category], problems: Problems
) -> Iterator[Entry]:
    """The usable annotations, each with an id of its own."""
    sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in images}
    names = {category["id"] for category in categories}
    used: set[int] = set()
    new_ids = None
    for position, entry in enumerate(_entries(entries, progress=True)):
        checked = _annotation(entry, position, sizes, names, problems)
        if checked is None:
            continue
        if checked["id"] in used or checked["id"] < 1:
            problems.note("annotation without an id of its own, given a new one", f"annotation {checked['id']}")
            new_ids = new_ids or itertools.count(_highest_id(entries) + 1)
            checked["id"] = next(new_ids)
        used.add(checked["id"])
        yield checked


def _highest_id(entries: list[object] | LongList) -> int:
    """The highest positive id of all annotations, dropped ones too; 0 if there is none."""
    ids = (whole_number(entry.get("id")) for entry in _entries(entries) if isinstance(entry, dict))
    return max((number for number in ids if number is not None and number > 0), default=0)


def _entries(value: list[object] | LongList, progress: bool = False) -> Iterator[object]:
    """The entries of a list; of one that is read in pieces, with a bar if wanted and if there is a terminal."""
    if isinstance(value, list):
        yield from value
        return
    from tqdm import tqdm  # here: only large files need it

    bar = tqdm(value.parts(), value.path.name, len(value.pieces), unit="MiB", disable=None if progress else True)
    for part in bar:
        yield from part


def _read(path: Path) -> dict[str, Any]:
    data = read_long_json(path, kind="annotation file; check the path or --root")
    if not isinstance(data, dict):
        raise InputError(f"{path}: not in COCO's form: expected an object with images, annotations and categories")
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), (list, LongList)):
            raise InputError(f"{path}: not in COCO's form: no list named {key!r}")
    return data


def _whole_fields(entry: Entry, keys: tuple[str, ...], where: str, problems: Problems) -> Entry:
    """The entry, or a copy in which these fields are ints where they hold whole numbers in another form, noted."""
    if _USUAL.issuperset(map(type, map(entry.get, keys))):
        return entry  # nearly always
    found = {key: number for key in keys if (number := whole_number(entry.get(key))) is not None}
    if all(type(entry[key]) is int for key in found):
        return entry
    problems.note(OTHER_FORM, where)
    return entry | found


def _categories(path: Path, entries: Iterable[object], problems: Problems) -> list[Category]:
    categories: list[Category] = []
    for entry in entries:
        if not isinstance(entry, dict) or whole_number(entry.get("id")) is None:
            raise InputError(f"{path}: a category has no whole number as its id: {str(entry)[:80]}")
        entry = _whole_fields(entry, ("id",), f"category {entry['id']}", problems)
        category: Category = {"id": entry["id"], "name": str(entry.get("name", entry["id"]))}
        for key in ("frequency", "synset"):  # LVIS
            if key in entry:
                category[key] = str(entry[key])
        categories.append(category)
    categories.sort(key=lambda category: category["id"])
    ids = [category["id"] for category in categories]
    if len(set(ids)) != len(ids):
        raise InputError(f"{path}: category id {next(i for i in ids if ids.count(i) > 1)} is there twice")
    if not ids:
        raise InputError(f"{path}: the list of categories is empty")
    return categories


def _images(path: Path, entries: Iterable[object], problems: Problems) -> list[Entry]:
    images: dict[int, Entry] = {}
    for entry in entries:
        if not isinstance(entry, dict) or whole_number(entry.get("id")) is None:
            raise InputError(f"{path}: an image has no whole number as its id: {str(entry)[:80]}")
        entry = _whole_fields(entry, ("id", "width", "height"), f"image {entry['id']}", problems)
        if "neg_category_ids" in entry and isinstance(entry.get("coco_url"), str):  # LVIS names files by their address
            entry["file_name"] = "/".join(entry["coco_url"].split("/")[-2:])
        if not isinstance(entry.get("file_name"), str):
            raise InputError(f"{path}: image {entry['id']} has no file_name")
        if not all((whole_number(entry.get(key)) or 0) > 0 for key in ("width", "height")):
            raise InputError(f"{path}: image {entry['id']} has no width and height in whole pixels; add them")
        if entry["id"] in images:
            problems.note("image id that is there twice, the later dropped", f"image {entry['id']}")
            continue
        images[entry["id"]] = entry
    if not images:
        raise InputError(f"{path}: the list of images is empty")
    return [images[i] for i in sorted(images)]


def _annotation(
    entry: object, position: int, sizes: dict[int, tuple[int, int]], categories: set[int], problems: Problems
) -> Entry | None:
    """A copy with all fields valid, or None; both are noted where something was wrong."""
    if not isinstance(entry, dict):
        problems.note("annotation that is no object, dropped", f"entry {position}")
        return None
    where = f"annotation {entry['id']}" if "id" in entry else f"annotation at position {position}"
    entry = _whole_fields(entry, ("id", "image_id", "category_id", *FLAGS), where, problems)
    image_id, category = whole_number(entry.get("image_id")), whole_number(entry.get("category_id"))
    if image_id is None or image_id not in sizes:
        problems.note("annotation of an unknown image, dropped", where)
        return None
    if category is None or category not in categories:
        problems.note("annotation of an unknown category, dropped", where)
        return None
    size = sizes[image_id]
    segmentation, wrong = usable_part(entry.get("segmentation"), *size)
    if segmentation is None:
        problems.note(f"{wrong[-1]}, annotation dropped", where)
        return None
    for kind in wrong:
        problems.note(kind, where)
    checked = {"iscrowd": 0, **entry, "segmentation": segmentation}
    for flag in FLAGS:
        if flag in checked:
            checked[flag] = _flag(checked[flag], flag, where, problems)
    if checked["iscrowd"] and is_mask_of_cvat(entry):
        problems.note(OF_CVAT, where)
        checked["iscrowd"] = 0
    checked["id"] = whole_number(entry.get("id")) or 0
    _check_box(checked, size, where, problems)
    if not _is_finite(entry.get("area")):
        problems.note("area missing or not finite, taken from the segmentation", where)
        checked["area"] = float(coco_mask.area(to_rle(segmentation, *size)))
    return checked


def _check_box(checked: Entry, size: tuple[int, int], where: str, problems: Problems) -> None:
    """Take a box that is missing from the segmentation; note one that means another object than that."""
    box, segmentation = checked.get("bbox"), checked["segmentation"]
    extent = segmentation_box(segmentation)
    if isinstance(segmentation, list) and in_unit_square(extent, *size):
        problems.note(UNITS, where)
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
        problems.note("box missing or not finite, taken from the segmentation", where)
        checked["bbox"] = list(extent)
    elif min(box[2:]) <= 0 and min(extent[2:]) >= 1:
        problems.note("box without width or height, taken from the segmentation", where)
        checked["bbox"] = list(extent)
    elif box[2] > 0 and box[3] > 0 and not checked["iscrowd"] and (kind := disagreement(tuple(box), extent, *size)):
        problems.note(kind, where)


def _flag(value: object, name: str, where: str, problems: Problems) -> int:
    """1 or 0 of true or false, a number, or nothing; what is none of these is noted and 0."""
    if value is not None and not isinstance(value, (int, float)):
        problems.note(f"{name} that is no number, taken as 0", where)
        return 0
    return int(bool(value))


def segmentation_box(segmentation: Any) -> XYWH:
    """The box x, y, width, height around a checked segmentation, in pixels."""
    if isinstance(segmentation, dict):
        x, y, width, height = coco_mask.toBbox(to_rle(segmentation, *segmentation["size"])).tolist()
        return x, y, width, height
    values = segmentation[0] if len(segmentation) == 1 else [value for polygon in segmentation for value in polygon]
    columns, rows = values[::2], values[1::2]  # lists: numpy would take longer to begin than these take
    x, y = float(min(columns)), float(min(rows))
    return x, y, max(columns) - x, max(rows) - y


def _is_finite(value: object) -> bool:
    if type(value) is float:
        return math.isfinite(value)  # nearly always
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
