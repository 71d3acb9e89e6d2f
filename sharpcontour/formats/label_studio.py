"""Label Studio's JSON, read and written: brush masks and polygons.

A file is a list of tasks, each with "data" that names the image, and "annotations" or "predictions", whose "result" is
a list of regions (labelstud.io/guide/predictions). A region has "original_width" and "original_height" in pixels.
Points, "x", "y", "width" and "height" are percent of these, from the upper left corner (HumanSignal/
label-studio-converter, converter.py: x / 100 * width). The bytes of a brush mask are told in ``brush.py``.

What is written are predictions, which Label Studio shows as a draft. The project's labeling interface must have the
tags that are named here, with a Label for each class:

    <View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">...</BrushLabels></View>

or PolygonLabels with the name "polygon". A brush mask has exactly the pixels of its object. Polygons there have no
holes and no parts: the rings of an object are joined by bridges, edges that are walked there and back, and are found
again when the file is read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import numpy as np
from pycocotools import mask as coco_mask

from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.formats.brush import decode_brush, encode_brush
from sharpcontour.formats.named_masks import NamedMask, Reading, Size, check_size, checked, is_score
from sharpcontour.formats.other_fields import LABEL_STUDIO, fields_of, held
from sharpcontour.formats.outlines import bridges, class_of, in_pixels, not_held, numbers, whole_in_file
from sharpcontour.formats.which_image import choose_image, other_name
from sharpcontour.io.files import save_results
from sharpcontour.masks.run_lengths import RLE, crop_to_rle

_SHAPES = ("points", "rle", "x", "vertices")  # keys of regions that are shapes, x of a rectangle, ellipse or keypoint
_PERCENT_DECIMALS = 5  # a ten thousandth of a pixel, of 1000


def is_label_studio(contents: Any) -> bool:
    """Whether a JSON file holds tasks of Label Studio, or one of them."""
    tasks = contents if isinstance(contents, list) else [contents]
    return bool(tasks) and all(
        isinstance(task, dict)
        and isinstance(task.get("data"), dict)
        and isinstance(task.get("annotations", task.get("predictions")), list)
        for task in tasks
    )


def read_label_studio(
    path: Path, tasks: Sequence[Mapping[str, Any]], size: Size, image: str, image_id: Any = None
) -> Reading:
    """The masks of a photograph in a file of Label Studio.

    Its first annotation that was not cancelled is read, and its first prediction where there is none.

    Args:
        path: of the file, for error messages.
        tasks: of the file.
        size: of the photograph.
        image: name of the photograph's file; Label Studio puts some characters and a hyphen before it.
        image_id: id of its task, where that has another name.

    Raises:
        WrongSizeError: naming both sizes, where it is of another photograph.
        InputError: naming the region, where one is broken or of a kind that is not read.
    """
    named = [{"id": task.get("id"), "file_name": _image_of(task, image), "task": task} for task in tasks]
    chosen = choose_image(path, named, image, image_id)
    task = chosen["task"]
    results, which = _results_of(path, task)
    regions: dict[Any, NamedMask] = {}
    others = 0
    shapes = [result for result in results if isinstance(result, dict) and _is_shape(result)]
    count = max(len({str(one[key]) for one in shapes if key in one}) for key in ("to_name", "item_index"))
    if count > 1:
        raise InputError(
            f"{path}: the task has regions on {count} images, which are not told apart; make a task of each image"
        )
    for index, result in enumerate(results):
        value = result.get("value") if isinstance(result, dict) else None
        if value is None and isinstance(result, dict) and "type" in result:  # a relation has none
            others += 1
            continue
        if not isinstance(value, dict):
            raise InputError(f"{path}: region {index}: is no object of JSON with a 'value'; mend it, or take it out")
        label = _label_of(value)
        where = f"{path}: region {index}" + (f" ({label})" if label else "")
        key = str(result["id"]) if "id" in result else index
        if key in regions:  # the same region again, with its label or another attribute of it
            known = regions[key]
            known.category = known.category or label
            known.name = known.category or known.name
        elif _is_shape(result):
            score = result.get("score")
            regions[key] = NamedMask(
                label or f"{path.stem} {index + 1}",
                _read_region(result, value, size, where),
                label,
                score=score if is_score(score) else None,
                fields=fields_of({key: result[key] for key in ("meta",) if key in result}, (), where),
                kind=LABEL_STUDIO,
            )
        else:
            others += 1
    rest = f"; results that are no shapes: {others}" if others else ""
    other = other_name(chosen, image, image_id)
    of = f", of {other}" if other else ""
    return Reading(list(regions.values()), f"Label Studio, {which}{of}{rest}")


def _is_shape(result: Mapping[str, Any]) -> bool:
    """Whether a result is a shape on an image, and no label, relation or text."""
    value = result.get("value")
    return isinstance(value, dict) and any(name in value for name in _SHAPES)


def _image_of(task: Mapping[str, Any], image: str) -> str:
    """The name of a task's image; without the eight digits that Label Studio puts before that of an upload."""
    texts = [value for value in task["data"].values() if isinstance(value, str)]
    names = [_file_name(text) for text in texts]
    plain = [re.sub(r"^[0-9a-f]{8}-", "", name) for name in names]
    if image in names or image in plain:
        return image
    kind = Path(image).suffix.lower()
    return next((name for name in plain if Path(name).suffix.lower() == kind), plain[0] if plain else "")


def _file_name(address: str) -> str:
    """The file that an address ends with; of local storage it stands behind "?d="."""
    path, _, query = address.partition("?")
    local = parse_qs(query).get("d", [""])[0] if path.endswith("/local-files/") else ""
    return (local or unquote(path)).replace("\\", "/").rpartition("/")[2]


def _results_of(path: Path, task: Mapping[str, Any]) -> tuple[list[Any], str]:
    """The regions of a task, and whose they are."""
    for kind in ("annotations", "predictions"):
        entries = task.get(kind)
        usable = [
            entry
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict) and isinstance(entry.get("result"), list) and not entry.get("was_cancelled")
        ]
        if usable:
            which = f"its {kind[:-1]}" if len(usable) == 1 else f"the first of {len(usable)} {kind}"
            return usable[0]["result"], which
    raise InputError(f"{path}: its task has neither an annotation nor a prediction; give one that has")


def _label_of(value: Mapping[str, Any]) -> str | None:
    for name in ("brushlabels", "polygonlabels", "rectanglelabels", "labels"):
        labels = value.get(name)
        if isinstance(labels, list) and labels:
            return str(labels[0])
    return None


def _read_region(result: Mapping[str, Any], value: Mapping[str, Any], size: Size, where: str) -> Any:
    """One region as a COCO segmentation."""
    check_size((result.get("original_height"), result.get("original_width")), size, where)
    if result.get("image_rotation") or value.get("rotation"):
        raise InputError(f"{where}: is turned, or drawn on a turned image, which is not read; draw it upright")
    if "rle" in value:
        try:
            inside = decode_brush(value["rle"], *size)
        except ValueError as error:
            raise InputError(f"{where}: {error}; export it again") from None
        return crop_to_rle(inside, 0, 0, *size)
    if "points" not in value and "height" not in value:
        kind = result.get("type", "this type")
        raise InputError(f"{where}: a region of {kind} is not read; make it a polygon, rectangle or brush mask")
    try:
        if "points" in value:
            points = [[float(x), float(y)] for x, y in value["points"]]
        else:
            x, y, width, height = (float(value[name]) for name in ("x", "y", "width", "height"))
            points = [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: its points are no numbers [x, y] in percent; mend it, or take it out") from None
    return checked([in_pixels(np.array(points).reshape(-1, 2), 100, size).ravel().tolist()], size, where)


def write_brushes(path: str | Path, found: Detections, given: Sequence[NamedMask], photo: Path) -> list[str]:
    """Write K objects of one photograph as brush masks of Label Studio, which hold holes and parts.

    Args:
        path: of the file.
        found: the objects.
        given: their classes, the labels; "object" for what has none; and their scores.
        photo: of the photograph.

    Returns:
        What the format cannot hold, a line each.

    Raises:
        InputError: where it cannot be written.
    """
    rles = found.rles()
    values = [
        [{"format": "rle", "rle": encode_brush(coco_mask.decode(rle).astype(bool))}] if coco_mask.area(rle) else []
        for rle in rles
    ]
    return _write(path, found, given, photo, "brush", values, rles)


def write_polygons(path: str | Path, found: Detections, given: Sequence[NamedMask], photo: Path) -> list[str]:
    """Write K objects of one photograph as polygons of Label Studio; see :func:`write_brushes`."""
    rles = found.rles()
    values = [
        [{"points": numbers(polygon), "closed": True} for polygon in whole_in_file(rings, rle, 100, _PERCENT_DECIMALS)]
        for rings, rle in zip(found.rings, rles, strict=True)
    ]
    kept = [rings for rings, value in zip(found.rings, values, strict=True) if value]
    return bridges(kept, "polygons") + _write(path, found, given, photo, "polygon", values, rles)


def _write(
    path: str | Path,
    found: Detections,
    given: Sequence[NamedMask],
    photo: Path,
    tag: str,
    values: Sequence[Sequence[Mapping[str, Any]]],
    rles: Sequence[RLE],
) -> list[str]:
    height, width = found.size
    result = [
        {
            "id": f"object-{k}",
            "type": f"{tag}labels",
            "from_name": tag,
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {**value, f"{tag}labels": [class_of(mask)]},
            **({} if mask.score is None else {"score": mask.score}),
            **held(mask, LABEL_STUDIO),
        }
        for k, (mask, own) in enumerate(zip(given, values, strict=True), 1)
        for value in own
    ]
    prediction = {"model_version": "sharpcontour", "result": result}
    save_results([{"data": {"image": photo.name}, "predictions": [prediction]}], path)
    return not_held(given, rles, scores=False)
