"""What a file tells of its objects beside their masks, classes and scores: kept where a file of its kind is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sharpcontour.errors import InputError
from sharpcontour.formats.named_masks import NamedMask
from sharpcontour.formats.which_image import first_names

MOST = 8  # names of fields in a line

COCO, LABELME, CVAT, LABEL_STUDIO = "coco", "labelme", "cvat", "label-studio"
"""Kinds of files that have further fields, by the names of the formats that hold them."""


def fields_of(entry: Mapping[str, Any], known: Collection[str], where: str) -> dict[str, Any]:
    """The fields of an entry of JSON but for those that are known.

    Args:
        entry: of the file.
        known: names of fields that are read, or follow from the mask.
        where: file and entry, for the error message.

    Raises:
        InputError: where one holds NaN or Infinity, or lists within lists without end, and could not be written again.
    """
    found = {name: value for name, value in entry.items() if name not in known}
    for name, value in found.items():
        try:
            json.dumps([[[[value]]]], allow_nan=False)  # as deep as it lies in a file
        except ValueError:
            raise InputError(f"{where}: its {name!r:.40} holds NaN or Infinity, which is not JSON; mend it") from None
        except RecursionError:
            raise InputError(f"{where}: its {name!r:.40} holds too much within one another; take it out") from None
    return found


def held(mask: NamedMask, kind: str) -> dict[str, Any]:
    """The further fields of an object for a file of this kind; none where it comes from a file of another."""
    return mask.fields if mask.kind == kind else {}


def not_carried_over(given: Sequence[NamedMask], written: Collection[str]) -> list[str]:
    """A line for each kind of file whose further fields are in none that is written, with how many objects have them.

    Args:
        given: the objects.
        written: names of formats.
    """
    kinds = dict.fromkeys(mask.kind for mask in given if mask.fields)
    return [
        f"not carried over: {told} ({kind} would keep them)"
        for kind in kinds
        if not any(name.startswith(kind) for name in written) and (told := _counted(given, kind))
    ]


def _counted(given: Sequence[NamedMask], kind: str) -> str:
    counts = Counter(name for mask in given for name, value in held(mask, kind).items() if _says_something(value))
    told = ((name if name.isprintable() else repr(name), count) for name, count in counts.items())
    return first_names((f"{name:.40} ({count})" for name, count in told), MOST)


def _says_something(value: Any) -> bool:
    return any(value.values()) if isinstance(value, Mapping) else bool(value)
