"""YOLO's text of polygons, read and written: a line "class x1 y1 x2 y2 ..." an object.

Coordinates are divided by the photograph's width and height and lie from 0 to 1 (ultralytics/ultralytics,
ultralytics/data/utils.py, ``verify_image_label``). The names of the classes are no part of the file. They are taken
from "classes.txt" beside it, where that is there: a line a class, the first of which is class 0, as CVAT, labelImg and
Label Studio write it.

A line has no place for holes and parts. As in Ultralytics' own conversion of COCO (data/converter.py,
``merge_multi_segment``) the rings of an object are joined by bridges, edges that are walked there and back, and are
found again when the file is read here. Ultralytics paints a bridge, a line of a pixel at most, when it makes masks.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.formats.named_masks import NamedMask, Reading, Size, checked
from sharpcontour.formats.outlines import bridges, class_of, in_pixels, not_held, plain, whole_in_file
from sharpcontour.io.files import write_whole
from sharpcontour.io.lock import waited_lock

CLASSES = "classes.txt"
_MOST = 1000  # classes: an id beyond is none that YOLO could have
_DECIMALS = 7
_WAIT = 60  # s, for other commands to name their classes


def read_yolo(path: Path, size: Size) -> Reading | None:
    """The objects of a file of YOLO's polygons; None where it is no text in UTF-8.

    Args:
        path: of the file.
        size: of the photograph.

    Raises:
        InputError: naming the line, where one is broken, a box, or not divided by the photograph's size.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return None
    names = read_classes(path.with_name(CLASSES))
    found = [
        _read_object(line.split(), names, size, f"{path}: line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    return Reading(found, "YOLO's polygons" + (f", classes named in {CLASSES}" if names else ""))


def read_classes(path: Path) -> list[str]:
    """The names of the classes 0, 1, ... in a file of a line each; none where it is not there.

    Raises:
        InputError: where it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputError(f"{path}: names of classes cannot be read ({reason}); mend it, or take it away") from None


def _read_object(words: list[str], names: Sequence[str], size: Size, where: str) -> NamedMask:
    if not all(map(is_number, words)) or not float(words[0]).is_integer():
        raise InputError(f"{where}: is not 'class x1 y1 x2 y2 ...' in numbers; mend it, or take it out")
    label, values = int(float(words[0])), [float(word) for word in words[1:]]
    if len(values) in (4, 5):
        raise InputError(
            f"{where}: is a box and no outline; give polygons 'class x1 y1 x2 y2 x3 y3 ...', as YOLO's segmentation "
            "models write them"
        )
    if len(values) < 6:
        raise InputError(f"{where}: has fewer than three points; mend it, or take it out")
    score = values.pop() if len(values) % 2 else None  # a confidence may stand at the end
    points = np.array(values).reshape(-1, 2)
    if points.min() < -0.5 or points.max() > 1.5:
        raise InputError(f"{where}: is not divided by the photograph's width and height; coordinates go from 0 to 1")
    mask = checked([in_pixels(points, 1, size).ravel().tolist()], size, where)
    known = names[label].strip() if 0 <= label < len(names) else ""
    name = known or f"class {label}"
    return NamedMask(name, mask, name, label, score)


def is_number(word: str | bytes) -> bool:
    """Whether a word is a finite number."""
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def write_yolo(path: str | Path, found: Detections, given: Sequence[NamedMask], photo: Path) -> list[str]:
    """Write K objects of one photograph as YOLO's polygons, and the names of their classes as "classes.txt" beside it.

    Lines that "classes.txt" has already stay: several photographs may be written to one folder, one after another. A
    class that it does not have yet gets the id of the given file as its number where that is free, else the next one.
    Commands that write to one folder at once wait for each other.

    Args:
        path: of the file; YOLO knows the photograph by its name.
        found: the objects.
        given: their classes; "object" for what has none.
        photo: of the photograph, for the error message: the file does not name it.

    Returns:
        The numbers of the classes, and what the format cannot hold, a line each.

    Raises:
        InputError: where a file cannot be written, is "classes.txt" itself, or that cannot be read.
    """
    if Path(path).name.casefold() == CLASSES:
        raise InputError(f"{path}: is where YOLO has the names of the classes; rename the photograph {photo.name}")
    numbers = _known_numbers(Path(path).with_name(CLASSES), given)
    rles, lines, kept = found.rles(), [], []
    for rings, rle, mask in zip(found.rings, rles, given, strict=True):
        for polygon in whole_in_file(rings, rle, 1, _DECIMALS):
            lines.append(" ".join([str(numbers[class_of(mask)]), *map(plain, polygon.ravel().tolist())]))
            kept.append(rings)
    write_whole("".join(line + "\n" for line in lines).encode(), path)
    told = ", ".join(f"{number} {name}" for name, number in sorted(numbers.items(), key=lambda entry: entry[1]))
    return [f"classes {told} ({CLASSES})", *bridges(kept, "lines"), *not_held(given, rles)]


def _known_numbers(path: Path, given: Sequence[NamedMask]) -> dict[str, int]:
    """The number of each class of some objects, once "classes.txt" has them; other commands wait meanwhile."""
    lock = path.with_name(path.name + ".lock")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # some network drives lock no files
            path.parent.mkdir(parents=True, exist_ok=True)
            if not stack.enter_context(waited_lock(lock, _WAIT)):
                raise InputError(f"{lock}: another command has held it for {_WAIT} s; end it, or give another --out")
        names = read_classes(path)
        numbers = _numbers(given, names)
        write_whole("".join(name + "\n" for name in names).encode("utf-8", "replace"), path)
        return numbers


def _numbers(given: Sequence[NamedMask], names: list[str]) -> dict[str, int]:
    """The number of each class of some objects; ``names`` gets those that it has not."""
    ids = {class_of(mask): mask.category_id for mask in reversed(given)}
    for label in sorted(dict.fromkeys(map(class_of, given)), key=lambda name: ids[name] is None):
        name, number = _line(label), ids[label]
        if name in (known.strip() for known in names):
            continue
        if number is not None and 0 <= number < _MOST and (number >= len(names) or not names[number].strip()):
            names += [""] * (number + 1 - len(names))
            names[number] = name
        else:
            names.append(name)
    known = [name.strip() for name in names]
    return {label: known.index(_line(label)) for label in map(class_of, given)}


def _line(name: Any) -> str:
    """A name as a line of its own."""
    return " ".join(str(name).split()) or "object"
