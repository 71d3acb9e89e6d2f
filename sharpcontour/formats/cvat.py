"""CVAT's own XML, "CVAT for images 1.1", read and written.

The file has an element "image" for each image, with "id", "name", "width" and "height", and in it the shapes
(docs.cvat.ai, "XML annotation format"). A polygon's points "x,y;x,y;..." are continuous pixels from the image's upper
left corner. A mask is cut to its box: "left", "top", "width" and "height" are whole pixels, and "rle" are run lengths
along the rows of the box, which begin with those outside (cvat-ai/cvat, cvat/apps/dataset_manager: bindings.py writes
them with width = right - left + 1; formats/transformations.py, ``cvat_rle_to_dm_rle``, reads them).

Polygons there have no holes. An object of one ring is written as a polygon, one with holes or parts as a mask; both
have exactly its pixels. "group_id" joins shapes of a label to one object when they are read, as CVAT's export to COCO
does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from pycocotools import mask as coco_mask

from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.formats.named_masks import (
    NamedMask,
    Reading,
    Size,
    check_crop,
    check_size,
    checked,
    joined_parts,
)
from sharpcontour.formats.other_fields import CVAT, held
from sharpcontour.formats.outlines import class_of, counted, not_held, plain, rings_in_file
from sharpcontour.formats.which_image import choose_image
from sharpcontour.formats.xml_files import text_for_xml
from sharpcontour.io.files import write_whole
from sharpcontour.masks.run_lengths import RLE, crop_to_rle

_NO_SHAPES = ("tag", "attribute")
_READ = ("polygon", "mask", "box")
_KEPT = ("occluded", "z_order")  # of a shape, "0" where they say nothing
_DIGITS = 15  # of a whole number at most; no image has as many pixels


def read_cvat(path: Path, root: Element, size: Size, image: str, image_id: Any = None) -> Reading:
    """The masks of a photograph in a file of "CVAT for images 1.1".

    Args:
        path: of the file, for error messages.
        root: its element "annotations".
        size: of the photograph.
        image: name of the photograph's file.
        image_id: its id in the file, where it has another name there.

    Raises:
        WrongSizeError: naming both sizes, where the masks are of another photograph.
        InputError: naming the shape, where one is broken or of a kind that is not read.
    """
    if root.find("track") is not None:
        raise InputError(f"{path}: is of CVAT for video; export 'CVAT for images 1.1'")
    images = [{**element.attrib, "file_name": element.get("name"), "of": element} for element in root.iter("image")]
    chosen = choose_image(path, images, image, image_id)
    check_size((chosen.get("height"), chosen.get("width")), size, f"{path}: masks of {chosen['file_name']}")
    shapes: list[tuple[Any, NamedMask]] = []
    tags = 0
    for index, shape in enumerate(chosen["of"]):
        label = shape.get("label", "")
        where = f"{path}: shape {index}" + (f" ({label})" if label else "")
        if shape.tag in _NO_SHAPES:
            tags += 1
            continue
        mask = _read_shape(shape, size, where)
        group = shape.get("group_id", "0")
        key = index if group == "0" else (label, group)
        one = NamedMask(
            label or f"{path.stem} {index + 1}", mask, label or None, fields=_other_fields(shape), kind=CVAT
        )
        shapes.append((key, one))
    objects, unlike = joined_parts(shapes, size)
    how = f"CVAT, {counted(len(chosen['of']), 'shape')}" + (f"; tags of the image, no shapes: {tags}" if tags else "")
    return Reading(objects, how + unlike)


def _other_fields(shape: Element) -> dict[str, Any]:
    """Whether a shape is occluded, its layer, and its attributes, names and texts."""
    found: dict[str, Any] = {name: shape.attrib[name] for name in _KEPT if shape.get(name, "0") != "0"}
    attributes = {one.get("name", ""): one.text or "" for one in shape.iter("attribute")}
    return found | ({"attributes": attributes} if attributes else {})


def _read_shape(shape: Element, size: Size, where: str) -> Any:
    """One shape as a COCO segmentation."""
    if shape.tag not in _READ:
        raise InputError(
            f"{where}: a shape of type {shape.tag} is not read; make it a polygon or a mask, or take it out"
        )
    if shape.tag == "mask":
        return _read_runs(shape.attrib, size, where)
    if shape.get("rotation", "0").strip("0.") != "":
        raise InputError(f"{where}: a box that is turned is not read; make it a polygon or a mask, or take it out")
    try:
        if shape.tag == "box":
            x0, y0, x1, y1 = (float(shape.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
            points = [x0, y0, x1, y0, x1, y1, x0, y1]
        else:
            pairs = [pair.split(",") for pair in shape.attrib["points"].split(";")]
            points = [float(value) for x, y in pairs for value in (x, y)]
    except (KeyError, ValueError):
        raise InputError(f"{where}: its points are no numbers 'x,y;x,y;...'; mend it, or take it out") from None
    return checked([points], size, where)


def _read_runs(mask: Mapping[str, str], size: Size, where: str) -> RLE:
    """A mask's run lengths, along the rows of its box, as run lengths of the photograph."""
    try:
        left, top, width, height = (_whole(mask[name]) for name in ("left", "top", "width", "height"))
        runs = np.array([_whole(run) for run in mask["rle"].split(",")])
    except (KeyError, ValueError):
        raise InputError(f"{where}: its run lengths or its box are no whole numbers; mend it, or take it out") from None
    check_crop(left, top, width, height, size, f"{where}: its box")
    pixels = width * height
    if (runs < 0).any() or (runs > pixels).any() or runs.sum() != pixels:
        raise InputError(f"{where}: its run lengths do not add up to the {width} x {height} pixels of its box; mend it")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return crop_to_rle(inside, left, top, *size)


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(text)
    return int(text)


def write_cvat(path: str | Path, found: Detections, given: Sequence[NamedMask], photo: Path) -> list[str]:
    """Write K objects of one photograph as "CVAT for images 1.1", which CVAT uploads to a task with this photograph.

    Args:
        path: of the file.
        found: the objects.
        given: their categories, the labels; "object" for what has none. The task must have the same labels. What a file
            of CVAT told besides (occluded, z_order, attributes) is kept.
        photo: of the photograph, whose name the task knows it by.

    Returns:
        What the format cannot hold, a line each.

    Raises:
        InputError: where it cannot be written.
    """
    height, width = found.size
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    _add_labels(root, list(dict.fromkeys(map(class_of, given))))
    name = text_for_xml(photo.name)
    image = SubElement(root, "image", id="0", name=name, width=str(width), height=str(height))
    rles = found.rles()
    for rings, rle, mask in zip(found.rings, rles, given, strict=True):
        if not coco_mask.area(rle):
            continue
        common, fields = {"label": text_for_xml(class_of(mask)), "source": "auto"}, held(mask, CVAT)
        common["occluded"], z_order = fields.get("occluded", "0"), fields.get("z_order", "0")
        outline = rings_in_file(rings, rle) if len(rings) == 1 else []
        if len(outline) == 1:
            points = ";".join(f"{plain(x)},{plain(y)}" for x, y in outline[0].tolist())
            shape = SubElement(image, "polygon", {**common, "points": points, "z_order": z_order})
        else:
            shape = SubElement(image, "mask", {**common, **_runs(rle), "z_order": z_order})
        for name, text in fields.get("attributes", {}).items():
            SubElement(shape, "attribute", name=name).text = text
    indent(root)
    write_whole(tostring(root, encoding="utf-8", xml_declaration=True), path)
    return not_held(given, rles)


def _add_labels(root: Element, names: Sequence[str]) -> None:
    """What CVAT's other tools read first: the labels of the task."""
    task = SubElement(SubElement(root, "meta"), "task")
    SubElement(task, "size").text = "1"
    SubElement(task, "mode").text = "annotation"
    labels = SubElement(task, "labels")
    for name in names:
        label = SubElement(labels, "label")
        SubElement(label, "name").text = text_for_xml(name)
        SubElement(label, "type").text = "any"
        SubElement(label, "attributes")


def _runs(rle: RLE) -> dict[str, str]:
    """The attributes of a mask."""
    left, top, width, height = (int(value) for value in coco_mask.toBbox(rle))
    inside = coco_mask.decode(rle)[top : top + height, left : left + width].ravel()
    changes = np.flatnonzero(np.diff(inside, prepend=0))
    runs = np.diff(changes, prepend=0, append=inside.size).tolist()
    box = {"left": str(left), "top": str(top), "width": str(width), "height": str(height)}
    return {"rle": ", ".join(map(str, runs)), **box}
