"""Which entries of a data set's file are the photograph's: by its id, by its file name, or because there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from sharpcontour.errors import InputError
from sharpcontour.formats.coco_fields import id_text
from sharpcontour.formats.named_masks import NoMaskError

LISTED = 3  # things that an error message names
CHOOSE = "give the id of the photograph's with --image-id"


def choose_image(path: Path, images: Any, name: str, image_id: Any = None) -> Mapping[str, Any]:
    """The entry of the photograph: by its id, its file name, that without the ending, or because it is the only one.

    Args:
        path: of the file.
        images: its entries, each with "id" and "file_name".
        name: of the photograph's file.
        image_id: its id in the file; None: its name tells.

    Raises:
        NoMaskError: where none has that id or name.
        InputError: where several have it.
    """
    entries = [image for image in images if isinstance(image, dict)] if isinstance(images, list) else []
    if image_id is not None:
        found = [image for image in entries if id_text(image.get("id")) == id_text(image_id)]
    else:
        found = [image for image in entries if base_name(image) == name]
        found = found or [image for image in entries if Path(base_name(image)).stem == Path(name).stem]
        found = found or (entries if len(entries) == 1 else [])
    if len(found) == 1:
        return found[0]
    wanted = f"the id {image_id}" if image_id is not None else f"the name {name}"
    if found:
        raise InputError(
            f"{path}: {len(found)} images have {wanted}, ids {first_names(i.get('id') for i in found)}; {CHOOSE}"
        )
    there = first_names(map(base_name, entries))
    raise NoMaskError(f"{path}: none of its {len(entries)} images has {wanted} (there are {there}); {CHOOSE}")


def base_name(image: Mapping[str, Any]) -> str:
    """The "file_name" of an entry without its folders, whichever slashes it has."""
    return PureWindowsPath(str(image.get("file_name") or "")).name


def other_name(entry: Mapping[str, Any], image: str, image_id: Any = None) -> str:
    """The name of an entry that was chosen for the photograph ``image``, said to be another one; empty where it is not.

    An entry that was chosen by ``image_id`` was meant, whatever its name.
    """
    name = base_name(entry)
    return "" if image_id is not None or name in ("", image) else f"{name}, which is not the photograph's name"


def first_names(items: Iterable[Any], count: int = LISTED, separator: str = ", ") -> str:
    """The first ``count`` of many things and how many more there are, for a message."""
    names = [str(item) for item in items]
    return separator.join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
