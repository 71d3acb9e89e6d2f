"""The photographs of LabelMe files: where they are, and which of them need a copy.

A file's photograph is where its "imagePath" says, or has that name in the file's folder; else it is the one beside the
file that is named like it; else the "imageData" in the file; else the only one of that name below the folder of
photographs, which may be another of the same name: that comes last and is told.

Photographs stay where they are, with two exceptions. Data sets refer to the pixels as they are stored, LabelMe to the
photograph turned upright as its EXIF data say: where these differ, an upright copy is written. And some photographs are
in the LabelMe file alone.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path, PureWindowsPath
from typing import Any

import cv2
import numpy as np

from sharpcontour.errors import InputError
from sharpcontour.formats.which_image import first_names
from sharpcontour.io.files import write_whole
from sharpcontour.io.headers import LENGTH, is_image
from sharpcontour.io.images import SUFFIXES

COPIES = "copies"
"""Folder of the photographs that are written, beside the annotations."""

QUALITY = 95  # percent, of JPEG files that are written upright


def list_files(folder: Path, suffixes: Set[str]) -> list[Path]:
    """The files of a folder and below it with one of some endings, sorted; hidden ones and linked folders are left out.

    Raises:
        InputError: where a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: the folder cannot be read ({error.strerror}); see to its permissions")

    found = []
    for here, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(here, name) for name in names if name[0] != "." and Path(name).suffix.lower() in suffixes]
    return sorted(found)


class Pictures:
    """The images that may be the photographs of LabelMe files.

    Args:
        root: folder of the LabelMe files.
        images: folder of the photographs that are not where the files say.
        copies: folder whose files are none of them.

    Attributes:
        paths: all in ``images`` and below it, sorted.
    """

    def __init__(self, root: Path, images: Path, copies: Path) -> None:
        self._copies = os.path.abspath(copies) + os.sep
        self.paths = self._below(images)
        self._named = _grouped((path.name, path) for path in self.paths)
        beside = self.paths if images == root else self._below(root)
        self._beside = _grouped((str(path.with_suffix("")), path) for path in beside)

    def _below(self, folder: Path) -> list[Path]:
        return [path for path in list_files(folder, SUFFIXES) if not os.path.abspath(path).startswith(self._copies)]

    def beside(self, path: Path, named: str) -> tuple[Path | None, bool]:
        """The photograph where a LabelMe file says or beside it, else None; and whether the file's own name tells it.

        Args:
            path: of the file, below the root.
            named: its "imagePath", with slashes or backslashes.

        Raises:
            InputError: where several may be it.
        """
        name = PureWindowsPath(named).name  # which knows both kinds of slashes
        for place in (named, named.replace("\\", "/"), name):
            if name and os.path.isfile(path.parent / place):
                return path.parent / place, False
        return _only(self._beside.get(str(path.with_suffix("")), []), path, named), True

    def elsewhere(self, path: Path, named: str) -> Path | None:
        """The only photograph of that name below the folder of photographs, else None; see :meth:`beside`."""
        return _only(self._named.get(PureWindowsPath(named).name, []), path, named)


def _only(candidates: Sequence[Path], path: Path, named: str) -> Path | None:
    if len(candidates) > 1:
        raise InputError(
            f"{path}: its photograph {named} is not there, and may be {first_names(candidates)}; write the right "
            "one into 'imagePath'"
        )
    return candidates[0] if candidates else None


def _grouped(pairs: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for key, path in pairs:
        groups[key].append(path)
    return groups


def embedded(path: Path, contents: Mapping[str, Any], copy: Path) -> Path | None:
    """Write the photograph that is in a LabelMe file beside its shapes; None where there is none in it.

    Args:
        path: of the file, for error messages.
        contents: of the file.
        copy: path to write to, but for its ending.

    Raises:
        InputError: where it is cut short, or cannot be written.
    """
    try:
        data = base64.b64decode(contents.get("imageData") or "")
    except (TypeError, ValueError, binascii.Error):
        return None
    if not is_image(data[:LENGTH]):
        return None
    if cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8) is None:
        raise InputError(f"{path}: its 'imageData' is an image that is cut short; put the photograph beside the file")
    return _keep(data, copy.with_suffix(".png" if data[:4] == b"\x89PNG" else ".jpg"))


def upright(photo: Path, pixels: np.ndarray, copy: Path) -> Path:
    """Write a photograph as it is seen; JPEG stays JPEG, all else becomes PNG.

    Args:
        photo: of the photograph.
        pixels: of it, upright, (H, W, 3) uint8 RGB.
        copy: path to write to, but for its ending.

    Raises:
        InputError: where it cannot be written.
    """
    with open(photo, "rb") as file:
        is_jpeg = file.read(2) == b"\xff\xd8"
    suffix, settings = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, QUALITY]) if is_jpeg else (".png", [])
    data = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), settings)[1].tobytes()
    return _keep(data, copy.with_name(f"{copy.stem}_upright{suffix}"))


def _keep(data: bytes, path: Path) -> Path:
    """Write a copy of a photograph, unless it is there; InputError where another file is."""
    if not path.exists():
        write_whole(data, path)
    elif not path.is_file() or path.read_bytes() != data:
        raise InputError(f"{path}: is there already and not this photograph; remove it, or choose another --out")
    return path


def whole(photo: Path) -> Path:
    """The path of a photograph from the root on, without "..", which behind a linked folder is not what it seems."""
    return Path(os.path.realpath(photo.parent), photo.name)


def common_folder(photos: Sequence[Path]) -> Path:
    """The innermost folder that holds all of some photographs, as a whole path.

    Raises:
        InputError: where there is none, since they lie on several drives.
    """
    try:
        return Path(os.path.commonpath([whole(photo).parent for photo in photos]))
    except ValueError:
        raise InputError("the photographs lie on several drives; put all of them, and --out, on one") from None
