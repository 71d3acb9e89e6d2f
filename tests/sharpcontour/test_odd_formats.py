"""Files of annotation tools that are broken, hostile, or of another photograph: a clear line each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from sharpcontour.errors import InputError
from sharpcontour.formats import label_studio, yolo
from sharpcontour.formats.brush import encode_brush
from sharpcontour.formats.mask_files import read_mask_files
from sharpcontour.formats.named_masks import NamedMask
from sharpcontour.formats.svg import _rings_of
from sharpcontour.io.images import WrongSizeError
from tests.sharpcontour.test_formats import PHOTO, RING, H, W

BOMB = (
    '<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<annotations><meta>&b;</meta></annotations>"
)


def refused(path: Path, contents: str | bytes, kind: type[Exception] = InputError) -> str:
    """The line that a file is refused with."""
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    with pytest.raises(kind) as told:
        read_mask_files([path], (H, W), PHOTO.name)
    message = str(told.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 500
    return message


def cvat(shape: str, size: str = f'width="{W}" height="{H}"') -> str:
    return f'<annotations><image id="0" name="photo.jpg" {size}>{shape}</image></annotations>'


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (BOMB, "defines entities, which are not read"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>', "defines entities"),
        ("<annotations><image>", "not valid XML, line 1 column 21: no element found"),
        ("<svg", "not valid XML, line 1"),
        ("<html></html>", "is XML with the root 'html', no masks that are understood"),
        ("<g>" * 5000 + "</g>" * 5000, "its elements are nested too deeply"),
        ('<?xml version="1.0" encoding="no-such"?><svg/>', "unknown encoding.*save it in UTF-8"),
        ("<annotations><track/></annotations>", "is of CVAT for video; export 'CVAT for images 1.1'"),
        ("<annotations/>", "none of its 0 images has the name photo.jpg"),
        (cvat("", 'width="12" height="9"'), "the mask is 12 x 9 pixels, the image 120 x 90"),
        (cvat('<polygon label="a" points="1,2;3,x;5,6"/>'), r"shape 0 \(a\): its points are no numbers"),
        (cvat('<polygon label="a" points="1,2;3"/>'), "its points are no numbers"),
        (cvat('<polygon label="a"/>'), "its points are no numbers"),
        (cvat('<polygon points="1,2;nan,3;5,6"/>'), "shape 0: a polygon has a coordinate that is not finite"),
        (cvat('<polygon points="1,2;1e308,3;5,6"/>'), "its outline reaches from"),
        (cvat('<polygon points="1,2;3,4"/>'), "a polygon must be a flat list"),
        (cvat('<polyline points="1,2;3,4;5,6"/>'), "a shape of type polyline is not read; make it a polygon or a mask"),
        (cvat('<box xtl="1" ytl="2" xbr="9" ybr="9" rotation="30"/>'), "a box that is turned is not read"),
        (cvat('<box xtl="1" ytl="2" xbr="9" ybr="9" rotation="x"/>'), "a box that is turned is not read"),
        (cvat('<mask rle="1,2" left="1" top="1" width="9" height="9"/>'), "do not add up to the 9 x 9 pixels"),
        (cvat('<mask rle="-1,82" left="1" top="1" width="9" height="9"/>'), "do not add up"),
        (cvat('<mask rle="1,x" left="1" top="1" width="9" height="9"/>'), "no whole numbers"),
        (cvat(f'<mask rle="{10**30}" left="1" top="1" width="9" height="9"/>'), "no whole numbers"),
        (cvat('<mask rle="81" left="115" top="1" width="9" height="9"/>'), "leaves the image, which is 120 x 90"),
        (cvat('<mask rle="81" left="-1" top="1" width="9" height="9"/>'), "leaves the image"),
        (cvat('<mask rle="81" left="1" top="1" width="999999999" height="999999999"/>'), "leaves the image"),
        (cvat(f'<mask rle="81" left="{"9" * 5000}" top="1" width="9" height="9"/>'), "no whole numbers"),
    ],
)
def test_xml_of_cvat(contents: str, message: str, tmp_path: Path) -> None:
    assert re.search(message, refused(tmp_path / "a.xml", contents)), message


def svg(shapes: str, view: str = f"0 0 {W} {H}") -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}">{shapes}</svg>'


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (svg("", "0 0 12 9"), "the mask is 12 x 9 pixels"),
        (svg("", "5 0 120 90"), "its viewBox begins at 5, 0, not at 0, 0"),
        (svg("", "0 0 x 90"), "has no viewBox of four numbers"),
        (svg("", "0 0 inf nan"), "has no viewBox of four numbers"),
        ('<svg width="100%" height="100%"/>', "has no viewBox of four numbers"),
        (svg('<path id="p" d="M1 1C2 2 3 3 4 4"/>'), "shape 0 (p): its path has 'C'; only straight lines"),
        (svg('<path d="M1 1L2 2 3"/>'), "its path ends within a point"),
        (svg('<path d="M1 1L2L3 3"/>'), "a number too few before 'L'"),
        (svg('<path d="L1 1 2 2 3 3"/>'), "does not begin with M"),
        (svg('<path d="1 1 2 2 3 3"/>'), "a number without a command"),
        (svg('<path d="M1 1L2 #"/>'), "its path has '#'"),
        (svg('<path d="M1 1L2 2"/>'), "a polygon must be a flat list"),
        (svg('<path d="M1 1L2 1e999L3 3"/>'), "not finite"),
        (svg('<path d="M1 1L2 9e9L3 3"/>'), "its outline reaches from"),
        (svg('<circle r="4"/>'), "a circle is not read; make it a path of straight lines"),
        (svg('<g transform="scale(2)"><path d="M1 1L2 2 3 9"/></g>'), "a g has a transform, which is not read"),
        (svg('<path data-score="high" d="M1 1L2 2 3 9"/>'), "its data-score is not the number"),
        (svg('<path data-category-id="1.5" d="M1 1L2 2 3 9"/>'), "its data-category-id is not the number"),
    ],
)
def test_svg(contents: str, message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path / "a.svg", contents)


def task(value: Any, **more: Any) -> str:
    result = {"original_width": W, "original_height": H, "value": value, **more}
    return json.dumps([{"data": {"image": "photo.jpg"}, "annotations": [{"result": [result]}]}])


def brush(data: Any) -> dict[str, Any]:
    return {"format": "rle", "rle": data, "brushlabels": ["a"]}


GOOD = encode_brush(RING)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (task({"points": [[1, 2], [3, "x"], [5, 6]]}), "region 0: its points are no numbers [x, y] in percent"),
        (task({"points": [[1, 2], [3], [5, 6]]}), "its points are no numbers"),
        (task({"points": 7}), "its points are no numbers"),
        (task({"points": [[1, 2], [float("nan"), 3], [5, 6]]}), "not finite"),
        (task({"points": [[1, 2], [900, 3], [5, 6]]}), "its outline reaches from"),
        (task({"points": [[1, 2], [10**400, 3], [5, 6]]}), "its points are no numbers"),
        (task({"x": 1, "y": "a", "width": 5, "height": 5}), "its points are no numbers"),
        (
            task({"x": 1, "y": 1, "radiusX": 5, "radiusY": 5}, type="ellipselabels"),
            "ellipselabels is not read; make it",
        ),
        (task({"x": 1, "y": 1, "width": 0.5}, type="keypointlabels"), "a region of keypointlabels is not read"),
        (task({"vertices": [], "closed": True}, type="vectorlabels"), "a region of vectorlabels is not read"),
        (task({"x": 1, "y": 1, "width": 5, "height": 5, "rotation": 9}), "is turned"),
        (task({"points": [[1, 2], [3, 4], [5, 9]]}, image_rotation=90), "is turned"),
        (task({"points": [[1, 2], [3, 4], [5, 9]]}, original_width=7), "the mask is 7 x 90 pixels"),
        (task("no object"), "region 0: is no object of JSON with a 'value'"),
        (task(brush(GOOD[:20])), "region 0 (a): its 'rle' is cut short, or damaged; export it again"),
        (task(brush(GOOD[:3])), "is cut short"),
        (task(brush([300] * 20)), "no list of whole numbers from 0 to 255"),
        (task(brush("AAAA")), "no list of whole numbers"),
        (task(brush([[1], [2, 3]])), "no list of whole numbers"),
        (task(brush([255] * 200)), "holds 4294967295 values, 4 x 120 x 90 are needed"),
        (task(brush([*GOOD[:4], 255, *GOOD[5:]])), "values of 32 bits, not 8"),
        (json.dumps([{"data": {"image": "photo.jpg"}, "annotations": []}]), "neither an annotation nor a prediction"),
        (json.dumps([{"data": {"image": "x.jpg"}, "annotations": []}] * 2), "none of its 2 images has the name"),
        ('[{"data": {"image": "photo.jpg"}, "annotations": [', "not valid JSON, line 1"),
    ],
)
def test_json_of_label_studio(contents: str, message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path / "a.json", contents)


def test_masks_of_labelme_that_are_none(tmp_path: Path) -> None:
    for change, message in [
        ({"mask": "???"}, "its 'mask' is no PNG in base64"),
        ({"mask": None}, "its 'mask' is no PNG in base64"),
        ({"mask": "AAAA"}, "its 'mask' is no PNG of 3 x 3 pixels in base64"),
        ({"points": [[118, 1], [121, 3]]}, "its mask of 4 x 3 pixels at 118, 1 leaves the image"),
        ({"points": [[-1e300, 1], [1e300, 3]]}, "leaves the image, which is 120 x 90 pixels"),
        ({"points": [[1, 1]]}, "a mask has two points"),
    ]:
        shape = {"label": "a", "shape_type": "mask", "points": [[1, 1], [3, 3]], "mask": "AAAA", **change}
        contents = {"shapes": [shape], "imageHeight": H, "imageWidth": W}
        assert message in refused(tmp_path / "a.json", json.dumps(contents))


def test_xml_in_utf_16_and_of_another_size(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(cvat('<polygon label="a" points="1,2;9,2;9,9"/>').encode("utf-16"))
    assert len(read_mask_files([path], (H, W), PHOTO.name)[0]) == 1
    refused(path, cvat("", 'width="12" height="9"'), WrongSizeError)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"image": "/data/local-files/?d=folder/photo.jpg"}, "photo.jpg"),
        ({"note": "seen before", "image": "s3://bucket/photo.jpg"}, "photo.jpg"),
        ({"image": "/data/upload/1/0a1b2c3d-my%20photo.jpg"}, "my photo.jpg"),
        ({"image": "/data/upload/1/0a1b2c3d-black-cat.jpg"}, "black-cat.jpg"),
    ],
)
def test_a_task_of_label_studio_names_its_image(data: dict[str, str], name: str) -> None:
    assert label_studio._image_of({"data": data}, "cat.jpg") == name
    assert label_studio._image_of({"data": data}, name) == name


def test_a_line_behind_a_closed_svg_ring_begins_another() -> None:
    shape = ElementTree.fromstring('<path d="M0 0L10 0L10 10Z L-5 0L-5 -5Z"/>')
    assert _rings_of(shape, "here") == [[0, 0, 10, 0, 10, 10], [0, 0, -5, 0, -5, -5]]


def test_a_class_with_blanks_around_it_is_known() -> None:
    names = ["cat ", "dog"]
    mask = NamedMask(mask=[], name="a", category="cat", category_id=0)
    assert yolo._numbers([mask], names) == {"cat": 0} and names == ["cat ", "dog"]
