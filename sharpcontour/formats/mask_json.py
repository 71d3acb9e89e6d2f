"""Masks in JSON files: COCO annotations and results, single segmentations, SAM's lists, LabelMe, Label Studio.

CVAT's COCO has its own meaning of "iscrowd" (``coco_fields.py``); what has 1 there is an object like others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sharpcontour.errors import InputError
from sharpcontour.formats.coco_fields import id_text, is_crowd, whole_number
from sharpcontour.formats.label_studio import is_label_studio, read_label_studio
from sharpcontour.formats.labelme import read_labelme
from sharpcontour.formats.named_masks import NamedMask, Reading, Size, check_size, checked, is_score
from sharpcontour.formats.other_fields import COCO, fields_of
from sharpcontour.formats.which_image import base_name, choose_image, other_name
from sharpcontour.io.files import read_json

THIS = "this photograph"
# Fields of an entry that are read, or that follow from the mask and the photograph.
_FIELDS = {"category_id", "name", "segmentation", "size", "counts", "iscrowd", "score"}
_FIELDS |= {"id", "image_id", "file_name", "area", "bbox"}
_UNKNOWN = (
    "is JSON, but no masks that are understood; give COCO annotations or results, a COCO segmentation, a list of "
    "entries with a 'segmentation' each, LabelMe or Label Studio"
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
    if is_label_studio(contents):
        return read_label_studio(path, contents if isinstance(contents, list) else [contents], size, image, image_id)
    if isinstance(contents, dict):
        if isinstance(contents.get("shapes"), list):
            reading = read_labelme(path, contents, size)
            other = other_name({"file_name": contents.get("imagePath")}, image)
            return replace(reading, how=f"{reading.how}, of {other}") if other else reading
        if isinstance(contents.get("annotations"), list):
            return _annotations(path, contents, size, image, image_id)
        if "counts" in contents or "segmentation" in contents:
            return _entries(path, {0: contents}, size, {}, "a COCO segmentation")
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
        id_text(category["id"]): str(category.get("name", category["id"]))
        for category in (categories if isinstance(categories, list) else [])
        if isinstance(category, dict) and _is_id(category.get("id"))
    }
    if "images" not in contents:
        own = contents.get("image")
        _check_image_size(path, own if isinstance(own, dict) else {}, size)
        mine, which = _of_photograph(path, annotations, image, image_id)
        return _entries(path, mine, size, names, f"annotations; {which}" if which else "annotations")
    chosen = choose_image(path, contents["images"], image, image_id)
    _check_image_size(path, chosen, size)
    wanted = id_text(chosen.get("id"))
    mine = {k: entry for k, entry in annotations.items() if id_text(entry.get("image_id")) == wanted}
    whose = other_name(chosen, image, image_id) or THIS
    how = f"COCO annotations; {len(mine)} of {len(annotations)} are of {whose}"
    return _entries(path, mine, size, names, how)


def _check_image_size(path: Path, image: Mapping[str, Any], size: Size) -> None:
    name = image.get("file_name", image.get("id", "its image"))
    check_size((image.get("height"), image.get("width")), size, f"{path}: masks of {name}")


def _results(path: Path, contents: Sequence[Any], size: Size, image: str, image_id: Any) -> Reading:
    """Results of a detector on many images, or a list of masks of one, such as SAM's."""
    for index, entry in enumerate(contents):
        _check_entry(path, index, entry)
    mine, which = _of_photograph(path, dict(enumerate(contents)), image, image_id)
    return _entries(path, mine, size, {}, f"a list; {which}" if which else "a list of masks")


def _of_photograph(
    path: Path, entries: dict[int, Mapping[str, Any]], image: str, image_id: Any
) -> tuple[dict[int, Mapping[str, Any]], str]:
    """The entries that are of a photograph, and how many of all are of which image; all where none names an image.

    They are told as :func:`choose_image` tells images; one that no entry names is called by its id.
    """
    groups: dict[str, dict[int, Mapping[str, Any]]] = {}  # by id, where there is one, else by file name
    for index, entry in entries.items():
        key = id_text(entry["image_id"]) if "image_id" in entry else base_name(entry)
        groups.setdefault(key, {})[index] = entry
    if set(groups) <= {""}:
        return entries, ""
    images = []
    for key, group in groups.items():
        names = [name for entry in group.values() if (name := base_name(entry))]
        unnamed = image if key == id_text(Path(image).stem) else key
        images.append({"id": key, "file_name": image if image in names else names[0] if names else unnamed})
    chosen = choose_image(path, images, image, image_id)
    mine = groups[str(chosen["id"])]
    return mine, f"{len(mine)} of {len(entries)} are of {other_name(chosen, image, image_id) or THIS}"


def _check_entry(path: Path, index: int, entry: Any) -> None:
    """InputError unless it is a dict whose ids can be compared."""
    if not isinstance(entry, dict):
        raise InputError(f"{path}: entry {index} is no object of JSON with a 'segmentation'; mend it, or take it out")
    if not _is_id(entry.get("image_id", 0)):
        raise InputError(f"{path}: entry {index}: its 'image_id' is neither a number nor text; mend it")


def _entries(
    path: Path, entries: Mapping[int, Mapping[str, Any]], size: Size, names: Mapping[str, str], how: str
) -> Reading:
    """Entries of a file by their places in it; ``names`` are those of the categories, by id as text."""
    found = []
    for index, entry in entries.items():
        segmentation = entry if "counts" in entry else entry.get("segmentation")
        number, score = entry.get("category_id"), entry.get("score")
        key, own = id_text(number), entry.get("name")
        category = names.get(key, f"category {key}") if _is_id(number) else None
        unnamed = f"{path.stem} {index + 1}" if len(entries) > 1 else path.stem
        found.append(
            NamedMask(
                own if own and isinstance(own, str) else category or unnamed,
                checked(segmentation, size, f"{path}: entry {index}"),
                category,
                whole_number(number),
                score if is_score(score) else None,
                is_crowd(entry),
                fields_of(entry, _FIELDS, f"{path}: entry {index}"),
                COCO,
            )
        )
    return Reading(found, how)


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) or whole_number(value) is not None
