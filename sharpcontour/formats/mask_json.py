"""Masks in JSON files: COCO annotations and results, single segmentations, SAM's lists, LabelMe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from sharpcontour.errors import InputError
from sharpcontour.formats.named_masks import NamedMask, Reading, Size, check_reach, check_size, checked, is_score
from sharpcontour.io.files import read_json

LISTED = 3  # things that an error message names
_CHOOSE = "give the id of the photograph's with --image-id"
_UNKNOWN = (
    "is JSON, but no masks that are understood; give COCO annotations or results, a COCO segmentation, a list of "
    "entries with a 'segmentation' each, or LabelMe"
)


def read_json_masks(path: Path, size: Size, image: str, image_id: Any = None) -> Reading:
    """The masks of a photograph in a JSON file, whichever of the kinds above it is.

    Args:
        path: of the file, which may be compressed with gzip.
        size: of the photograph.
        image: name of the photograph's file, by which a data set's file knows it.
        image_id: id of the photograph in a data set's file, instead of its name.

    Raises:
        WrongSizeError: naming both sizes, where the masks are of another photograph.
        InputError: naming the entry, where one is broken, and where it is not clear which entries are meant.
    """
    contents = read_json(path, "file of masks")
    if isinstance(contents, dict):
        if isinstance(contents.get("shapes"), list):
            return _labelme(path, contents, size)
        if isinstance(contents.get("annotations"), list):
            return _annotations(path, contents, size, image, image_id)
        if "counts" in contents or "segmentation" in contents:
            return Reading(_entries(path, {0: contents}, size, {}), "a COCO segmentation")
    elif isinstance(contents, list):
        if all(isinstance(entry, dict) for entry in contents):
            return _results(path, contents, size, image, image_id)
        if all(isinstance(value, (int, float, list)) for value in contents):
            mask = checked(contents, size, f"{path}: its segmentation")
            return Reading([NamedMask(path.stem, mask)], "the polygons of one object")
    raise InputError(f"{path}: {_UNKNOWN}")


def _annotations(path: Path, contents: Mapping[str, Any], size: Size, image: str, image_id: Any) -> Reading:
    """A data set's annotations, or those of one image (SA-1B)."""
    annotations = dict(enumerate(contents["annotations"]))
    for index, entry in annotations.items():
        _check_entry(path, index, entry)
    categories = contents.get("categories")
    names = {
        category["id"]: str(category.get("name", category["id"]))
        for category in (categories if isinstance(categories, list) else [])
        if isinstance(category, dict) and isinstance(category.get("id"), (int, str))
    }
    if "images" not in contents:
        own = contents.get("image")
        _check_image_size(path, own if isinstance(own, dict) else {}, size)
        return Reading(_entries(path, annotations, size, names), "annotations of one image")
    chosen = _choose_image(path, contents["images"], image, image_id)
    _check_image_size(path, chosen, size)
    mine = {k: entry for k, entry in annotations.items() if entry.get("image_id") == chosen.get("id")}
    how = f"COCO annotations; {len(mine)} of {len(annotations)} are of {chosen.get('file_name', 'this image')}"
    return Reading(_entries(path, mine, size, names), how)


def _check_image_size(path: Path, image: Mapping[str, Any], size: Size) -> None:
    name = image.get("file_name", image.get("id", "its image"))
    check_size((image.get("height"), image.get("width")), size, f"{path}: masks of {name}")


def _choose_image(path: Path, images: Any, name: str, image_id: Any) -> Mapping[str, Any]:
    """The entry of the photograph: by its id, its file name, that without the ending, or because it is the only one."""
    entries = [image for image in images if isinstance(image, dict)] if isinstance(images, list) else []
    if image_id is not None:
        found = [image for image in entries if str(image.get("id")) == str(image_id)]
    else:
        found = [image for image in entries if _base(image) == name]
        found = found or [image for image in entries if Path(_base(image)).stem == Path(name).stem]
        found = found or (entries if len(entries) == 1 else [])
    if len(found) == 1:
        return found[0]
    wanted = f"the id {image_id}" if image_id is not None else f"the name {name}"
    if found:
        raise InputError(
            f"{path}: {len(found)} images have {wanted}, ids {_first(i.get('id') for i in found)}; {_CHOOSE}"
        )
    raise InputError(
        f"{path}: none of its {len(entries)} images has {wanted} (there are {_first(map(_base, entries))}); {_CHOOSE}"
    )


def _base(image: Mapping[str, Any]) -> str:
    return PureWindowsPath(str(image.get("file_name", ""))).name  # which takes both kinds of slashes


def _results(path: Path, contents: Sequence[Any], size: Size, image: str, image_id: Any) -> Reading:
    """Results of a detector on many images, or a list of masks of one, such as SAM's."""
    for index, entry in enumerate(contents):
        _check_entry(path, index, entry)
    ids = list(dict.fromkeys(entry["image_id"] for entry in contents if "image_id" in entry))
    mine = dict(enumerate(contents))
    if image_id is None and len(ids) > 1:
        named = {entry["image_id"] for entry in contents if "image_id" in entry and _base(entry) == image}
        stem = Path(image).stem
        number = int(stem) if stem.isascii() and stem.isdigit() else None
        image_id = next((one for one in ids if one in named or one in (number, stem)), None)
        if image_id is None:
            raise InputError(f"{path}: holds masks of {len(ids)} images, ids {_first(ids)}; {_CHOOSE}")
    if image_id is not None and ids:
        mine = {k: entry for k, entry in mine.items() if str(entry.get("image_id")) == str(image_id)}
        if not mine:
            raise InputError(f"{path}: has no masks of image {image_id}, but of {_first(ids)}; {_CHOOSE}")
    how = f"a list; {len(mine)} of {len(contents)} are of this photograph" if ids else "a list of masks"
    return Reading(_entries(path, mine, size, {}), how)


def _check_entry(path: Path, index: int, entry: Any) -> None:
    """InputError unless it is a dict whose ids can be compared."""
    if not isinstance(entry, dict):
        raise InputError(f"{path}: entry {index} is no object of JSON with a 'segmentation'; mend it, or take it out")
    if not isinstance(entry.get("image_id", 0), (int, str)):
        raise InputError(f"{path}: entry {index}: its 'image_id' is neither a number nor text; mend it")


def _entries(
    path: Path, entries: Mapping[int, Mapping[str, Any]], size: Size, names: Mapping[Any, str]
) -> list[NamedMask]:
    """Entries of a file by their places in it; ``names`` are those of the categories."""
    found = []
    for index, entry in entries.items():
        segmentation = entry if "counts" in entry else entry.get("segmentation")
        number, score = entry.get("category_id"), entry.get("score")
        known = isinstance(number, (int, str))
        category = names.get(number, f"category {number}") if known else None
        found.append(
            NamedMask(
                category or (f"{path.stem} {index + 1}" if len(entries) > 1 else path.stem),
                checked(segmentation, size, f"{path}: entry {index}"),
                category,
                number if isinstance(number, int) else None,
                score if is_score(score) else None,
                entry.get("iscrowd") == 1,
            )
        )
    return found


def _first(items: Any) -> str:
    names = [str(item) for item in items]
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _labelme(path: Path, contents: Mapping[str, Any], size: Size) -> Reading:
    """LabelMe's shapes; those of one label and group are parts of one object."""
    check_size((contents.get("imageHeight"), contents.get("imageWidth")), size, f"{path}")
    objects: dict[Any, NamedMask] = {}
    for index, shape in enumerate(contents["shapes"]):
        label = str(shape.get("label", "")) if isinstance(shape, dict) else ""
        where = f"{path}: shape {index}" + (f" ({label})" if label else "")
        if not isinstance(shape, dict):
            raise InputError(f"{where}: is no object of JSON; mend it, or take it out")
        polygons = checked([_outline(shape, size, where)], size, where)
        group = shape.get("group_id")
        key = (label, str(group)) if group is not None else index
        name = label or f"{path.stem} {index + 1}"
        objects.setdefault(key, NamedMask(name, [], label or None)).mask.extend(polygons)
    return Reading(list(objects.values()), f"LabelMe, {len(contents['shapes'])} shapes")


def _outline(shape: Mapping[str, Any], size: Size, where: str) -> list[float]:
    """One shape as a flat polygon; a circle may reach beyond the photograph, and is cut off there."""
    points = shape.get("points")
    try:
        corners = np.array(points, np.float64)
        if corners.ndim > 1 and corners.shape[1:] != (2,):  # a third number a point would become the next one's x
            raise ValueError
        corners = corners.reshape(-1, 2)
    except (TypeError, ValueError):
        raise InputError(f"{where}: its 'points' are no list of [x, y]; mend it, or take it out") from None
    kind = shape.get("shape_type") or "polygon"
    if kind == "polygon":
        return corners.ravel().tolist()
    if kind not in ("rectangle", "circle"):
        raise InputError(
            f"{where}: a shape of type {kind} is not read; make it a polygon, rectangle or circle, or take it out"
        )
    if len(corners) != 2 or not np.isfinite(corners).all():
        raise InputError(f"{where}: a {kind} has two points; mend it, or take it out")
    (x0, y0), (x1, y1) = corners.tolist()
    if kind == "rectangle":
        return [x0, y0, x1, y0, x1, y1, x0, y1]
    check_reach([[x0, y0, x1, y1]], size, where)
    radius = math.hypot(x1 - x0, y1 - y0)
    turn = np.linspace(0, 2 * np.pi, round(min(max(4 * radius, 16), 1024)), endpoint=False)
    circle = np.stack([x0 + radius * np.cos(turn), y0 + radius * np.sin(turn)], 1)
    return circle.clip(0, (size[1], size[0])).ravel().tolist()
