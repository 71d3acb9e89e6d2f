"""Results of any detector, to be refined: their entries, and the files of the images that these are on."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.annotations import Entry, Id, Problems
from data.journal import fingerprint_of, in_a_line
from sharpcontour.errors import InputError
from sharpcontour.formats.named_masks import is_score
from sharpcontour.formats.which_image import first_names
from sharpcontour.io.files import read_json
from sharpcontour.io.headers import Size
from sharpcontour.io.images import SUFFIXES, UnreadableError, WrongSizeError, looks_like_image, read_image
from sharpcontour.masks.segmentation import tell_unusual

FARTHEST = 1e7  # px, of a box


@dataclass
class ImageFile:
    """An image that has detections, and where its file is.

    Attributes:
        id: as the results name it.
        path: of its file.
        upright: whether its EXIF data are followed, unless only the other way fits (see :meth:`read`).
        entries: which of the results are on it.
    """

    id: Id
    path: Path
    upright: bool
    entries: list[int]

    @property
    def name(self) -> str:
        """What it is called in a journal: another one as soon as the file is replaced."""
        return json.dumps([self.id, *fingerprint_of(self.path)])

    def read(self, annotated: Size | None = None, entries: Sequence[Entry] = ()) -> tuple[np.ndarray, bool]:
        """The pixels, (H, W, 3) uint8 RGB, and whether ``upright`` was wrong: only the other orientation fits.

        Args:
            annotated: (height, width) as annotations say it; None: there are none, and run lengths tell.
            entries: the image's entries.

        Raises:
            WrongSizeError: if no orientation has the annotated size.
            UnreadableError: as of :func:`~sharpcontour.io.images.read_image`.
        """
        sizes = [annotated] if annotated else [size for entry in entries if (size := _size_of_runs(entry))]
        try:
            pixels = read_image(self.path, self.upright, annotated)
        except WrongSizeError as error:
            try:
                return read_image(self.path, not self.upright, annotated), True
            except WrongSizeError:
                raise error from None
        size = (pixels.shape[0], pixels.shape[1])
        if size[::-1] in sizes and size not in sizes:
            other = read_image(self.path, not self.upright)
            if other.shape != pixels.shape:
                return other, True
        return pixels, False


def read_entries(path: str, scored: bool) -> list[Entry]:
    """Read COCO results of any detector.

    Args:
        path: of the JSON file.
        scored: whether every entry must have a number as its score, and a category, which AP needs.

    Raises:
        InputError: where an entry has no image id, no number as its score if needed, or cannot be written again.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InputError(f"{path}: not a list; expected COCO results, a list of detections")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or "image_id" not in entry:
            raise InputError(f"{path}: entry {index} has no 'image_id'; expected COCO results")
        if not isinstance(entry["image_id"], (int, str)):
            raise InputError(
                f"{path}: entry {index}: its 'image_id' is neither an integer nor a text; write 7, not 7.0"
            )
        if scored and not isinstance(entry.get("score"), (int, float)):
            raise InputError(f"{path}: entry {index} has no number as its 'score', which AP needs")
        if scored and "category_id" not in entry:
            raise InputError(f"{path}: entry {index} has no 'category_id', which AP needs")
        try:
            json.dumps(entry, allow_nan=False)
        except ValueError:
            raise InputError(f"{path}: entry {index} holds NaN or Infinity, which is not JSON; mend it") from None
    tell_unusual(entries, path)
    return entries


def find_images(
    entries: list[Entry], results: str, images: str, annotations: Any = None, annotations_name: str | None = None
) -> list[ImageFile]:
    """The images with detections, in the order in which the results first name them; every file was looked at.

    Args:
        entries: from :func:`read_entries`.
        results: name of their file, for error messages.
        images: folder of the images.
        annotations: COCO annotations, which name the files, if there are.
        annotations_name: of their file, for error messages.

    Raises:
        InputError: where an image is missing, or cannot be read.
    """
    folder = Path(images)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images; name another with --images DIR")
    groups: dict[Id, list[int]] = {}
    for index, entry in enumerate(entries):
        groups.setdefault(entry["image_id"], []).append(index)
    if annotations is None:
        names = {key: _file_name(key, [entries[k] for k in indices], results) for key, indices in groups.items()}
    else:
        names = {image["id"]: image.get("file_name") for image in annotations["images"]}
        unknown = [key for key in groups if key not in names]
        if unknown:
            raise InputError(
                f"{results}: {len(unknown)} image ids are not in {annotations_name}: {first_names(unknown)}"
            )
    unnamed = {str(key) for key in groups if not isinstance(names[key], str)}
    numbered = by_number(folder, unnamed) if unnamed else {}
    found, missing = [], []
    for key, indices in groups.items():
        name = names[key]
        path = folder / name if isinstance(name, str) else numbered.get(str(key))
        if path is None or not path.is_file():
            missing.append(f"image {key} ({name or 'no file_name, and no file of this number'})")
        elif not looks_like_image(path):
            raise InputError(f"{path}: is no image, or of a kind that cannot be read; replace it")
        else:
            found.append(ImageFile(key, path, annotations is None and isinstance(name, str), indices))
    if missing:
        mend = "" if annotations else "; --annotations GT.json (its images are enough) tells the names of the files"
        raise InputError(f"{folder}: {len(missing)} of {len(groups)} images are missing: {first_names(missing)}{mend}")
    return found


def _file_name(key: Id, entries: list[Entry], results: str) -> object:
    """The file name that the entries of an image have in common."""
    names = [name for entry in entries if (name := entry.get("file_name")) is not None]
    if other := next((name for name in names if name != names[0]), None):
        raise InputError(
            f"{results}: image_id {key} is of two files, {names[0]} and {other}, as where results of two runs were put "
            "together; give every image an id of its own"
        )
    return names[0] if names else None


def _size_of_runs(entry: Entry) -> Size | None:
    """The (height, width) that an entry's run lengths tell; None where it has none."""
    segmentation = entry.get("segmentation")
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size):
        return size[0], size[1]
    return None


def note_left(problems: Problems, image: ImageFile, error: Exception) -> None:
    """Note that the entries of an image stay as they are, and why."""
    kind = f"image that failed, {image.path.name} ({in_a_line(error)})"
    if isinstance(error, WrongSizeError):
        kind = f"image of another size than annotated, {image.path.name}"
    elif isinstance(error, UnreadableError):
        kind = f"image that cannot be read, {image.path.name}"
    for index in image.entries:
        problems.note(kind, f"entry {index}")


def by_number(folder: Path, wanted: Set[str]) -> dict[str, Path]:
    """The images of a folder whose names are the numbers ``wanted``, by that number without leading zeros."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        number = str(int(path.stem)) if path.stem.isascii() and path.stem.isdigit() else ""
        if number in wanted and (path.suffix.lower() in SUFFIXES or looks_like_image(path)):
            if number in found:
                raise InputError(f"{path} and {found[number].name} are both image {number}; remove one")
            found[number] = path
    return found


def category_of(entry: Entry) -> Id | None:
    """The category id of an entry; None where it is missing or no id."""
    category = entry.get("category_id")
    return category if isinstance(category, (int, str)) else None


def score_of(entry: Entry) -> float:
    """The score of an entry; 1 where it is missing, no number, or more than a float holds."""
    score = entry.get("score")
    return float(score) if is_score(score) else 1.0


def box_of(entry: Entry) -> list[float] | None:
    """The box of an entry as xyxy; None where it has none of any size."""
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or odd_box(entry):
        return None
    x, y, width, height = box
    return [x, y, x + width, y + height] if width > 0 and height > 0 else None


def odd_box(entry: Entry) -> bool:
    """Whether an entry has a box that no image can hold: values that are no numbers, or lie far outside."""
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        return False
    return not all(isinstance(value, (int, float)) and -FARTHEST < value < FARTHEST for value in box)
