"""SVG, read and written: outlines that any browser shows over the photograph.

Coordinates are those of the "viewBox", "0 0 width height" of the photograph: continuous pixels from its upper left
corner. The rings of a path are combined by its "fill-rule", so that holes and parts are held as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from sharpcontour.contours.rasterize import rings_to_rles
from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.formats.named_masks import NamedMask, Reading, Size, check_size, checked, rings_or_pixels
from sharpcontour.formats.outlines import rings_in_file
from sharpcontour.formats.xml_files import text_for_xml
from sharpcontour.io.files import write_whole
from sharpcontour.masks.run_lengths import crop_to_rle
from sharpcontour.pictures.panels import PALETTE

_TOKEN = re.compile(r"([A-Za-z])|([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|[\s,]+|(.)")
_STEPS = {"M": 2, "L": 2, "H": 1, "V": 1, "Z": 0}  # numbers behind each command
HIDDEN = "hidden"  # in the place of a fill-rule
_NOT_DRAWN = ("defs", "clipPath", "mask", "marker", "pattern", "symbol", "metadata")
_GROUPS = ("g", "a", "switch")
_IN_SHEETS = re.compile(r"(?<![\w-])(fill-rule|transform|clip-path|mask|display|visibility)\s*:")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_SHAPES = ("path", "polygon", "rect", "circle", "ellipse", "polyline", "line", "text", "use")


def read_svg(path: Path, root: Element, size: Size) -> Reading:
    """The paths and polygons of an SVG file, one an object.

    Args:
        path: of the file, for error messages.
        root: its element "svg".
        size: of the photograph.

    Raises:
        WrongSizeError: naming both sizes, where its "viewBox" is not that of the photograph.
        InputError: naming the shape, where it is broken, has curves, or is transformed, clipped or masked.
    """
    _check_view(path, root, size)
    sheets = _COMMENT.sub("", " ".join(element.text or "" for element in root.iter("style")))
    if found := _IN_SHEETS.search(sheets):
        raise InputError(
            f"{path}: a style sheet in it sets {found[1]}, which is not read; write it on each path instead"
        )
    _check_untransformed(path, root)
    masks, hidden = [], 0
    for index, (shape, rule) in enumerate(_shapes(path, root)):
        if rule == HIDDEN:
            hidden += 1
            continue
        where = f"{path}: shape {index}" + (f" ({shape.get('id')})" if shape.get("id") else "")
        rings = _rings_of(shape, where)
        title = next((child.text for child in shape if child.tag == "title" and child.text), None)
        category = shape.get("data-category")
        name = title or category or shape.get("id") or f"{path.stem} {index + 1}"
        mask = _filled(rings, rule, size, where)
        score = _attribute(shape, "data-score", where)
        number = _attribute(shape, "data-category-id", where)
        crowd = shape.get("data-iscrowd") == "1"
        masks.append(NamedMask(name, mask, category, None if number is None else int(number), score, crowd))
    return Reading(masks, "SVG" + (f"; hidden, left out: {hidden}" if hidden else ""))


def _check_view(path: Path, root: Element, size: Size) -> None:
    view = (root.get("viewBox") or f"0 0 {root.get('width')} {root.get('height')}").replace(",", " ").split()
    try:
        x, y, width, height = (float(word.removesuffix("px")) for word in view)
        sides = round(height), round(width)
    except (ValueError, OverflowError):
        raise InputError(f"{path}: has no viewBox of four numbers, nor width and height in pixels; add one") from None
    if x or y:
        raise InputError(f"{path}: its viewBox begins at {view[0]}, {view[1]}, not at 0, 0; save it so")
    check_size(sides, size, str(path))


def _shapes(path: Path, parent: Element, rule: str = "nonzero") -> Iterator[tuple[Element, str]]:
    """The shapes in order, groups looked into, each with its fill-rule, which groups hand down, or :data:`HIDDEN`."""
    rule = _ruled(parent, rule)
    for element in parent:
        if element.tag in _NOT_DRAWN:
            continue
        drawn = [child for child in element if child.tag in (*_SHAPES, *_GROUPS)]
        if element.tag == "svg" or (element.tag == "switch" and len(drawn) > 1):
            raise InputError(f"{path}: has a {element.tag} inside, which is not read; make it a group, and save again")
        if element.tag in (*_SHAPES, *_GROUPS):
            _check_untransformed(path, element)
        if element.tag in _SHAPES:
            yield element, _ruled(element, rule)
        elif element.tag in _GROUPS:
            yield from _shapes(path, element, rule)


def _check_untransformed(path: Path, element: Element) -> None:
    for name in ("transform", "clip-path", "mask"):
        if (_property(element, name) or "none") != "none":
            raise InputError(f"{path}: a {element.tag} has a {name}, which is not read; apply it and save again")


def _ruled(element: Element, rule: str) -> str:
    """The fill-rule of an element in a group of ``rule``; nothing in what is hidden is shown."""
    # What is visible in a group that is not would be shown; nobody draws masks so.
    if (
        rule == HIDDEN
        or _property(element, "display") == "none"
        or _property(element, "visibility") in ("hidden", "collapse")
    ):
        return HIDDEN
    own = _property(element, "fill-rule")
    return rule if own in (None, "inherit") else own


def _property(element: Element, name: str) -> str | None:
    """A property of an element by its style, which comes first, or by an attribute."""
    found = re.findall(rf"(?:^|;)\s*{name}\s*:\s*([\w-]+)", element.get("style", ""))
    return found[-1] if found else element.get(name)


def _attribute(shape: Element, name: str, where: str) -> float | None:
    text = shape.get(name)
    try:
        value = None if text is None else float(text)
    except ValueError:
        value = math.nan
    if value is not None and (not math.isfinite(value) or ("id" in name and not value.is_integer())):
        raise InputError(f"{where}: its {name} is not the number it should be; mend it, or take it out")
    return value


def _rings_of(shape: Element, where: str) -> list[list[float]]:
    """The flat rings of a path or polygon."""
    if shape.tag == "polygon":
        text = "M" + shape.get("points", "") + "Z"
    elif shape.tag == "path":
        text = shape.get("d", "")
    else:
        raise InputError(f"{where}: a {shape.tag} is not read; make it a path of straight lines, or take it out")
    rings: list[list[float]] = []
    x = y = 0.0
    closed = False
    for command, values in _steps(text, where):
        upper, here = command.upper(), (0.0, 0.0) if command.isupper() else (x, y)
        if upper == "Z":
            if rings:
                x, y = rings[-1][:2]
            closed = True
            continue
        if closed and rings and upper != "M":
            rings.append([x, y])  # what follows a closed ring begins another one where that began
        closed = False
        if upper in "ML":
            x, y = here[0] + values[0], here[1] + values[1]
        elif upper == "H":
            x = here[0] + values[0]
        else:
            y = here[1] + values[0]
        if upper == "M":
            rings.append([])
        elif not rings:
            raise InputError(f"{where}: its path does not begin with M; mend it, or take it out")
        rings[-1] += [x, y]
    return [ring for ring in rings if len(ring) > 2]  # a place that only was moved to encloses nothing


def _steps(text: str, where: str) -> Iterator[tuple[str, list[float]]]:
    """The commands of a path, each with its numbers; a command that is left out is repeated."""
    command = ""
    numbers: list[float] = []
    for letter, number, odd in _TOKEN.findall(text):
        if odd or (letter and letter.upper() not in _STEPS):
            raise InputError(
                f"{where}: its path has '{odd or letter}'; only straight lines (M L H V Z) are read, flatten the curves"
            )
        if letter:
            if numbers:
                raise InputError(f"{where}: its path has a number too few before '{letter}'; mend it, or take it out")
            command = letter
            if letter in "Zz":
                yield command, []
        elif number:
            numbers.append(float(number))
            if not command or command in "Zz":
                raise InputError(f"{where}: its path has a number without a command; mend it, or take it out")
            if len(numbers) == _STEPS[command.upper()]:
                yield command, numbers
                numbers = []
                command = {"M": "L", "m": "l"}.get(command, command)
    if numbers:
        raise InputError(f"{where}: its path ends within a point; mend it, or take it out")


def _filled(flat: list[list[float]], rule: str, size: Size, where: str) -> Any:
    """What a shape's rings fill by a fill-rule."""
    for ring in flat:
        checked([ring], size, where)
    rings = [np.array(ring, np.float64).reshape(-1, 2) for ring in flat]
    if rule != "evenodd":
        x0, y0, winding = _windings(rings, size)
        if winding.max(initial=0) > 1 or winding.min(initial=0) < -1:  # else both rules fill the same
            return rings_or_pixels(rings, crop_to_rle(winding != 0, x0, y0, *size))
    return rings_or_pixels(rings, rings_to_rles([rings], *size)[0])


def _windings(rings: Rings, size: Size) -> tuple[int, int, np.ndarray]:
    """How often the rings go around the centre of each pixel of their box, one way less the other.

    Returns:
        First column and row of the box on the image, and (box height, box width) int32.
    """
    if not rings:
        return 0, 0, np.zeros((0, 0), np.int32)
    points = np.concatenate(rings)
    low = np.floor(points.min(0)).clip(0, size[::-1]).astype(int)
    high = np.ceil(points.max(0)).clip(low, size[::-1]).astype(int)
    width, height = (high - low).tolist()
    changes = np.zeros((height, width + 1), np.int32)
    for ring in (ring - low for ring in rings):
        begin, end = ring, np.roll(ring, -1, 0)
        # Rows whose centres an edge passes, each a crossing of the row's line through the centres.
        first, last = (np.ceil(np.clip(part[:, 1], 0, height) - 0.5).astype(int) for part in (begin, end))
        top, count = np.minimum(first, last), np.abs(last - first)
        edge = np.repeat(np.arange(len(ring)), count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + top[edge]
        share = (row + 0.5 - begin[edge, 1]) / (end - begin)[edge, 1]
        x = begin[edge, 0] + share * (end - begin)[edge, 0]
        column = np.ceil(np.clip(x, 0, width) - 0.5).astype(int)
        np.add.at(changes, (row, column), np.sign(last - first)[edge])
    return int(low[0]), int(low[1]), changes.cumsum(1, dtype=np.int32)[:, :-1]


def write_svg(path: str | Path, found: Detections, given: Sequence[NamedMask], photo: Path | None = None) -> list[str]:
    """Write K objects as an SVG image of the photograph's size: lay it over the photograph.

    An object is a path with the id "object-1" to "object-K", its rings under the even-odd rule, so that holes stay
    open; its name is the path's title. Its class, the id of that, its score and iscrowd 1 are the attributes
    "data-category", "data-category-id", "data-score" and "data-iscrowd", where it has them.

    Args:
        path: of the file.
        found: the objects.
        given: their names and categories.
        photo: not used: the file does not name it.

    Returns:
        No line: the format holds all.

    Raises:
        InputError: where it cannot be written.
    """
    height, width = found.size
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
    ]
    for k, (rings, rle, mask) in enumerate(zip(found.rings, found.rles(), given, strict=True)):
        colour = "#{:02x}{:02x}{:02x}".format(*PALETTE[k % len(PALETTE)])
        lines.append(
            f'<path id="object-{k + 1}"{_about(mask)} fill-rule="evenodd" fill="{colour}" fill-opacity="0.35" '
            f'stroke="{colour}" stroke-width="1" vector-effect="non-scaling-stroke" '
            f'd="{_path(rings_in_file(rings, rle))}"><title>{_text(mask.name)}</title></path>'
        )
    write_whole("\n".join([*lines, "</svg>", ""]).encode(), path)
    return []


def _about(mask: NamedMask) -> str:
    """The attributes that say what an object is."""
    values = {
        "category": mask.category or None,
        "category-id": None if mask.category_id is None else str(mask.category_id),
        "score": None if mask.score is None else repr(float(mask.score)),
        "iscrowd": "1" if mask.crowd else None,
    }
    return "".join(f' data-{name}="{_text(value)}"' for name, value in values.items() if value is not None)


def _path(rings: Rings) -> str:
    return " ".join("M" + "L".join(f"{_number(x)},{_number(y)}" for x, y in ring.tolist()) + "Z" for ring in rings)


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")


def _text(value: str) -> str:
    return escape(text_for_xml(value))
