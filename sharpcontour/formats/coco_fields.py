"""Fields of COCO's annotations and results, as tools write them that mean something else, or write it otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OF_CVAT = "mask of CVAT, which writes iscrowd 1 for all masks, taken as an object"
"""Kind of problem that :func:`is_mask_of_cvat` tells."""

_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,18}(\.0*)?\s*")


def whole_number(value: object) -> int | None:
    """The whole number that ``value`` is, be it an int, 7.0 or the text "7"; None if there is none of 64 bits."""
    if type(value) is int and abs(value) < 2**63:
        return value  # nearly always
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value.partition(".")[0])
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def id_text(value: object) -> str:
    """An id as text, one for 7, 7.0 and the text "7", for ids that one list has in another form than another."""
    number = whole_number(value)
    return str(value if number is None else number)


def is_crowd(entry: Mapping[str, Any]) -> bool:
    """Whether an annotation or a result with "iscrowd" 1 is many objects in one; masks of CVAT are not."""
    return entry.get("iscrowd") == 1 and not is_mask_of_cvat(entry)


def is_mask_of_cvat(entry: Mapping[str, Any]) -> bool:
    """Whether an annotation was exported by CVAT, known by its attribute "occluded", where "iscrowd" 1 tells no crowd.

    There masks have 1 and polygons 0 (cvat-ai/datumaro, which makes CVAT's exports,
    plugins/data_formats/coco/exporter.py: ``is_crowd = mask is not None``).
    """
    attributes = entry.get("attributes")
    return isinstance(attributes, Mapping) and "occluded" in attributes
