"""LabelMe's JSON, read and written.

A file holds the "shapes" of one image, with "imageHeight" and "imageWidth", and "imagePath" relative to the file
(labelmeai/labelme, labelme/label_file.py). Points are continuous pixels from the upper left corner of the image, which
LabelMe turns upright as its EXIF data say. Shapes of one "label" and "group_id" are parts of one object
(labelme/utils/shape.py, ``shapes_to_label``). A shape of type "mask" has a PNG in base64, which covers the pixels from
its first point to its second, both included.

Polygons there have no holes: a hole is cut open by a bridge to its outline, an edge that is walked there and back, and
is found again when the file is read here. LabelMe itself paints the bridge, a line of a pixel at most, when it makes
masks of polygons.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.formats.named_masks import (
    NamedMask,
    Reading,
    Size,
    check_crop,
    check_reach,
    check_size,
    checked,
    joined_parts,
)
from sharpcontour.formats.other_fields import LABELME, fields_of, held
from sharpcontour.formats.outlines import class_of, counted, holes_and_parts, not_held, numbers, parts_in_file
from sharpcontour.io.files import save_results
from sharpcontour.io.headers import header_size
from sharpcontour.masks.run_lengths import RLE, crop_to_rle

VERSION = "5.0.0"  # of LabelMe, since which its files have had this form
_FAR = 1e9  # pixels, farther than the corner of any image
_FIELDS = ("label", "points", "group_id", "shape_type", "mask")  # of a shape, that are read
_OUTLINED = ("rectangle", "circle", "mask")
_NO_OUTLINE = ("point", "points", "line", "linestrip")


class NoOutlineError(InputError):
    """A shape is of a kind that has no outline: points and lines."""


def read_labelme(
    path: Path, contents: Mapping[str, Any], size: Size, left_out: list[InputError] | None = None
) -> Reading:
    """The objects of a LabelMe file; shapes of one label and group are parts of one object.

    Args:
        path: of the file, for error messages.
        contents: of the file; "shapes" is a list.
        size: of the photograph.
        left_out: gets what is wrong with each shape that cannot be read, and the others are read; None: the first
            such shape is an error.

    Raises:
        WrongSizeError: naming both sizes, where it is of another photograph.
        InputError: naming the shape, where one is broken or of a kind that is not read.
    """
    check_size((contents.get("imageHeight"), contents.get("imageWidth")), size, f"{path}")
    shapes: list[tuple[Any, NamedMask]] = []
    for index, shape in enumerate(contents["shapes"]):
        label = str(shape.get("label") or "") if isinstance(shape, dict) else ""
        where = f"{path}: shape {index}" + (f" ({label})" if label else "")
        try:
            mask, fields = _read_shape(shape, size, where), fields_of(shape, _FIELDS, where)
        except InputError as error:
            if left_out is None:
                raise
            left_out.append(error)
            continue
        group = shape.get("group_id")
        key = (label, str(group)) if group is not None else index
        name = label or f"{path.stem} {index + 1}"
        if crowd := _is_crowd(shape):
            fields["flags"] = {flag: value for flag, value in fields["flags"].items() if flag != "iscrowd"}
        one = NamedMask(name, mask, label or None, crowd=crowd, fields=fields, kind=LABELME)
        shapes.append((key, one))
    objects, unlike = joined_parts(shapes, size)
    unnamed = sum(mask.category is None for mask in objects)
    how = f"LabelMe, {counted(len(contents['shapes']), 'shape')}" + (f", {unnamed} without a label" if unnamed else "")
    return Reading(objects, how + unlike + ("; flags of the image, left out" if contents.get("flags") else ""))


def _is_crowd(shape: Mapping[str, Any]) -> bool:
    flags = shape.get("flags")
    return isinstance(flags, dict) and flags.get("iscrowd") is True


def _read_shape(shape: Any, size: Size, where: str) -> Any:
    """One shape as a COCO segmentation."""
    if not isinstance(shape, dict):
        raise InputError(f"{where}: is no object of JSON; mend it, or take it out")
    points = shape.get("points")
    try:
        corners = np.array(points, np.float64)
        if corners.ndim > 1 and corners.shape[1:] != (2,):  # a third number a point would become the next one's x
            raise ValueError
        corners = corners.reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: its 'points' are no list of [x, y]; mend it, or take it out") from None
    kind = shape.get("shape_type") or "polygon"
    if kind == "polygon":
        return checked([corners.ravel().tolist()], size, where)
    if kind not in _OUTLINED:
        raise (NoOutlineError if kind in _NO_OUTLINE else InputError)(
            f"{where}: a shape of type {kind} is not read; make it a polygon, rectangle or circle, or take it out"
        )
    if len(corners) != 2 or not np.isfinite(corners).all():
        raise InputError(f"{where}: a {kind} has two points; mend it, or take it out")
    if kind == "mask":
        return _read_pixels(shape.get("mask"), corners, size, where)
    (x0, y0), (x1, y1) = corners.tolist()
    if kind == "rectangle":
        return checked([[x0, y0, x1, y0, x1, y1, x0, y1]], size, where)
    check_reach([[x0, y0, x1, y1]], size, where)
    radius = math.hypot(x1 - x0, y1 - y0)
    turn = np.linspace(0, 2 * np.pi, round(min(max(4 * radius, 16), 1024)), endpoint=False)
    circle = np.stack([x0 + radius * np.cos(turn), y0 + radius * np.sin(turn)], 1)
    return checked([circle.clip(0, (size[1], size[0])).ravel().tolist()], size, where)  # cut off at the photograph


def _read_pixels(text: Any, corners: np.ndarray, size: Size, where: str) -> RLE:
    """A shape of type "mask": the pixels of a PNG between two corners, both included."""
    x0, y0, x1, y1 = (int(value) for value in corners.clip(-_FAR, _FAR).ravel())
    width, height = x1 - x0 + 1, y1 - y0 + 1
    check_crop(x0, y0, width, height, size, f"{where}: its mask")
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InputError(f"{where}: its 'mask' is no PNG in base64; mend it, or take it out") from None
    pixels = None
    if header_size(data) == (height, width):  # looked at before it takes memory
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise InputError(f"{where}: its 'mask' is no PNG of {width} x {height} pixels in base64; mend it")
    return crop_to_rle(pixels > 0, x0, y0, *size)


def write_labelme(path: str | Path, found: Detections, given: Sequence[NamedMask], photo: Path) -> list[str]:
    """Write K objects of one photograph as LabelMe polygons, which LabelMe opens together with the photograph.

    Parts of one object have a "group_id" of their own in common, its number from 1 to K; iscrowd 1 is a flag "iscrowd".
    Descriptions, flags and further fields of objects that come from a file of LabelMe are kept.

    Args:
        path: of the file.
        found: the objects.
        given: their categories, the labels; "object" for what has none.
        photo: of the photograph.

    Returns:
        What the format cannot hold, a line each.

    Raises:
        InputError: where it cannot be written.
    """
    rles = found.rles()
    shapes: list[dict[str, Any]] = []
    for k, (rings, rle, mask) in enumerate(zip(found.rings, rles, given, strict=True), 1):
        parts, fields = parts_in_file(rings, rle), held(mask, LABELME)
        flags = fields.get("flags") or {}
        shapes += [
            {
                "label": class_of(mask),
                "points": numbers(part),
                "group_id": k if len(parts) > 1 else None,
                "description": "",
                "shape_type": "polygon",
                "mask": None,
                **fields,
                "flags": flags | {"iscrowd": True} if mask.crowd else flags,
            }
            for part in parts
        ]
    contents: dict[str, Any] = {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": relative(photo, Path(path).parent),
        "imageData": None,
        "imageHeight": found.size[0],
        "imageWidth": found.size[1],
    }
    save_results(contents, path)
    holes, _ = holes_and_parts([rings for rings, rle in zip(found.rings, rles, strict=True) if coco_mask.area(rle)])
    cut = [f"{counted(holes, 'hole')} cut open by a bridge to the outline, for its polygons have none"] if holes else []
    return cut + not_held(given, rles, crowds=False)


def relative(photo: Path, folder: Path) -> str:
    """The photograph as seen from a folder, with slashes; its whole path where it is on another drive."""
    try:
        return Path(os.path.relpath(photo, folder)).as_posix()
    except ValueError:
        return photo.resolve().as_posix()
