"""A folder of LabelMe files as COCO annotations, split at random into those to train on and those to validate on.

Shapes are read as everywhere here (``sharpcontour/formats/labelme.py``). Classes are the labels in sorted order, with
ids from 1. Which photograph a file is of, and when a copy of it is written, is told in ``data/labelme_photos.py``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from data.annotations import Annotations, Category, Entry, Problems
from data.labelme_photos import COPIES, Pictures, common_folder, embedded, list_files, upright, whole
from sharpcontour.errors import InputError
from sharpcontour.formats.labelme import NoOutlineError, read_labelme
from sharpcontour.formats.named_masks import NamedMask, Size, mask_rle
from sharpcontour.formats.outlines import OBJECT, class_of, counted
from sharpcontour.formats.output_files import polygons_or_runs
from sharpcontour.io.files import UnwritableError, read_json
from sharpcontour.io.images import UnreadableError, WrongSizeError, read_fitting, read_image
from sharpcontour.masks.run_lengths import RLE, counts_of

SPLITS = ("train", "val")
MADE = "made of LabelMe files by scripts/prepare_data.py"
"""By which a file is known that may be written anew."""

NO_LABELME = "JSON file that is none of LabelMe, for it has no list 'shapes', left out"
NO_OUTLINE = "point or line, which has no outline, left out"
ELSEWHERE = "photograph found by its name in another folder, not where 'imagePath' says; see that it is the right one"
BY_NAME = "photograph found by the name of its LabelMe file, not where 'imagePath' says"
EMBEDDED = "photograph that was in its LabelMe file alone, written to a file"
UPRIGHT = "photograph written upright, as it was labelled, for it is stored turned"
UNLABELLED = f"shape without a label, taken as of the class '{OBJECT}'"
UNUSED = "image without a LabelMe file, left out; if nothing is on it, save it in LabelMe without a shape"
ALIKE = "class whose name differs from another's in capital letters or spaces only; if they are one, mend the labels"


@dataclass
class Converted:
    """What a folder of LabelMe files has become.

    Attributes:
        splits: COCO annotations by "train" and "val", with the same categories; no id is in both.
        folder: of the images: where every "file_name" starts from.
        read: all files that were read, which must not be written to.
        problems: what else is to be known, by kind.
        faults: what was left out because something is wrong with it, a line each with file and mend.
    """

    splits: dict[str, Annotations]
    folder: Path
    read: list[Path]
    problems: Problems
    faults: list[str]


@dataclass
class _Labelled:
    """A photograph and its objects."""

    path: Path  # of the LabelMe file
    original: Path | None  # of the photograph as it was found; None where it was in the LabelMe file alone
    photo: Path  # of the photograph that goes with the annotations
    size: Size
    objects: list[tuple[NamedMask, RLE]]  # each of at least one pixel
    guessed: bool  # whether the photograph is only one of the right name, from another folder

    @property
    def source(self) -> str:
        """What tells photographs apart."""
        return os.path.realpath(self.original or self.photo)


@dataclass
class _Told:
    """What is to be told of one file: lines on faults, kinds of notes with where they were met, and its photograph."""

    photo: Path | None = None
    faults: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


def convert(
    root: Path, out: Path, images: Path | None = None, share: float = 0.2, seed: int = 0, progress: bool = False
) -> Converted:
    """COCO annotations of all LabelMe files in a folder and below it; hidden files and folders are not looked at.

    What cannot be taken is told, and all else is taken. Of a file with faults and without a usable object the
    photograph is left out, for it is not empty.

    Args:
        root: the folder.
        out: where the annotations will be; copies of photographs are written below it.
        images: folder of the photographs that are not where the files say; None: ``root``.
        share: of the photographs to validate on, above 0 and below 1; at least one is on each side.
        seed: of the split. It chooses by the names of the LabelMe files below ``root`` and by nothing else.
        progress: show a bar, if there is a terminal to show it.

    Raises:
        InputError: where a folder is missing, where fewer than two photographs or no object can be used, and where a
            copy cannot be written.
    """
    for folder in (root, images or root):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    own = {os.path.realpath(out / f"{split}.json") for split in SPLITS}
    paths = [path for path in list_files(root, {".json"}) if os.path.realpath(path) not in own]
    if not paths:
        raise InputError(f"{root}: no .json file is in it or below it; give the folder of the LabelMe files")
    pictures = Pictures(root, images or root, out / COPIES)
    told = [_Told() for _ in paths]

    def read(path: Path, one: _Told) -> _Labelled | None:
        return _read(path, pictures, out / COPIES / path.relative_to(root), one)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the interpreter's lock
        bar = tqdm(pool.map(read, paths, told), "files", len(paths), unit="file", disable=None if progress else True)
        found = _once(list(bar), told)
    photos = [one.photo for one in told if one.photo]
    problems, used = Problems(), set(map(os.path.realpath, photos))
    for kind, where in (note for one in told for note in one.notes):
        problems.note(kind, where)
    named = {path.with_suffix("") for path in paths}  # of a file that is broken the photograph is not without one
    for path in pictures.paths:
        if os.path.realpath(path) not in used and path.with_suffix("") not in named:
            problems.note(UNUSED, str(path))
    faults = [fault for one in told for fault in one.faults]
    labels = sorted({class_of(mask) for one in found for mask, _ in one.objects})
    if len(found) < 2 or not labels:
        what = f"has {counted(len(found), 'usable photograph')} and {len(labels)} classes; two and one are needed"
        raise InputError(f"{root}: {what}{f'; the first of {len(faults)} faults: {faults[0]}' if faults else ''}")
    _tell_alike(labels, problems)
    folder = common_folder([one.photo for one in found])
    chosen = _chosen([one.path.relative_to(root).as_posix() for one in found], share, seed)
    splits = _annotations(found, labels, folder, chosen)
    return Converted(splits, folder, paths + photos, problems, faults)


def _read(path: Path, pictures: Pictures, copy: Path, told: _Told) -> _Labelled | None:
    """Read one file and its photograph; None where it is of no use, which is told.

    Args:
        path: of the file.
        pictures: among which its photograph may be.
        copy: path of a copy of the photograph, but for its ending.
        told: gets what is to be told.

    Raises:
        UnwritableError: where a copy cannot be written, which no other file would change.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is a device or a pipe, no file; take it away")
        contents = read_json(path)
        if not isinstance(contents, dict) or not isinstance(contents.get("shapes"), list):
            told.notes.append((NO_LABELME, str(path)))
            return None
        return _labelled(path, contents, pictures, copy, told)
    except UnwritableError:
        raise
    except InputError as error:
        told.faults.append(str(error))
        return None


def _labelled(path: Path, contents: Mapping[str, Any], pictures: Pictures, copy: Path, told: _Told) -> _Labelled | None:
    named = str(contents.get("imagePath") or "")
    original, by_name = pictures.beside(path, named)
    photo, guessed = original or embedded(path, contents, copy), False
    if photo is None:
        photo = original = pictures.elsewhere(path, named)
        if photo is None:
            where = named or "(it names none)"
            raise InputError(
                f"{path}: its photograph {where} is not there; put it beside the file, or name its folder with --images"
            )
        told.notes.append((ELSEWHERE, f"{photo}"))
        by_name, guessed = False, True
    told.photo = photo
    left_out: list[InputError] = []
    try:
        pixels, reading, stored = read_fitting(photo, lambda size: read_labelme(path, contents, size, left_out))
    except WrongSizeError as error:
        raise InputError(f"{error} (the image is {photo})") from None
    except UnreadableError as error:
        raise InputError(f"{error} (it is the photograph of {path})") from None
    size: Size = (pixels.shape[0], pixels.shape[1])
    objects = [(mask, mask_rle(mask.mask, size)) for mask in reading.masks]
    told.notes += [(NO_OUTLINE, str(error)) for error in left_out if isinstance(error, NoOutlineError)]
    faults = [str(error) for error in left_out if not isinstance(error, NoOutlineError)]
    faults += [
        f"{path}: the object '{mask.name}' has no pixel in its photograph; mend it, or take it out"
        for mask, rle in objects
        if not coco_mask.area(rle)
    ]
    told.faults += faults
    objects = [(mask, rle) for mask, rle in objects if coco_mask.area(rle)]
    told.notes += [(UNLABELLED, f"{path}: {mask.name}") for mask, _ in objects if mask.category is None]
    if faults and not objects:
        told.faults.append(f"{path}: nothing usable is left of it, so its photograph is left out, for it is not empty")
        return None
    if original is None:
        told.notes.append((EMBEDDED, f"{photo}"))
    elif by_name:
        told.notes.append((BY_NAME, f"{photo}"))
    if not stored and not np.array_equal(read_image(photo), pixels):
        photo = upright(photo, pixels, copy)
        told.notes.append((UPRIGHT, f"{photo}"))
    return _Labelled(path, original, photo, size, objects, guessed)


def _once(found: Sequence[_Labelled | None], told: Sequence[_Told]) -> list[_Labelled]:
    """All that is of use, one file of each photograph, if possible one that says where it is; of others it is told."""
    known = [(one, lines) for one, lines in zip(found, told, strict=True) if one is not None]
    first: dict[str, _Labelled] = {}
    for one, lines in sorted(known, key=lambda pair: pair[0].guessed):
        if first.setdefault(one.source, one) is not one:
            other = first[one.source].path
            lines.faults.append(f"{one.path}: is of the photograph of {other}, left out; join them, or take one away")
    return [one for one, _ in known if first[one.source] is one]


def _tell_alike(labels: Sequence[str], problems: Problems) -> None:
    known: dict[str, str] = {}
    for label in labels:
        other = known.setdefault("".join(label.split()).casefold(), label)
        if other != label:
            problems.note(ALIKE, f"'{label}' and '{other}'")


def _chosen(names: Sequence[str], share: float, seed: int) -> set[int]:
    """Which of some photographs are validated on.

    Each has a place in line that its own name and the seed decide, so that few change sides when others are added.
    """

    def place(k: int) -> bytes:
        return hashlib.sha256(f"{seed} {names[k]}".encode("utf-8", "surrogatepass")).digest()

    count = min(max(round(share * len(names)), 1), len(names) - 1)
    return set(sorted(range(len(names)), key=place)[:count])


def _annotations(
    found: Sequence[_Labelled], labels: Sequence[str], folder: Path, chosen: set[int]
) -> dict[str, Annotations]:
    ids = {label: number for number, label in enumerate(labels, 1)}
    categories: list[Category] = [{"id": number, "name": label} for label, number in ids.items()]
    splits: dict[str, Annotations] = {
        split: {"images": [], "annotations": [], "categories": categories} for split in SPLITS
    }
    number = 0
    for k, one in enumerate(found):
        split = splits["val" if k in chosen else "train"]
        name = whole(one.photo).relative_to(folder).as_posix()
        split["images"].append({"id": k + 1, "file_name": name, "height": one.size[0], "width": one.size[1]})
        for mask, rle in one.objects:
            number += 1
            entry = {"id": number, "image_id": k + 1, "category_id": ids[class_of(mask)]}
            split["annotations"].append(entry | _shape(mask, rle))
    return splits


def _shape(mask: NamedMask, rle: RLE) -> Entry:
    """What an annotation says of an object's pixels: polygons where they have exactly these, else run lengths."""
    runs: Any = {"size": list(rle["size"]), "counts": counts_of(rle).decode("ascii")}
    if isinstance(mask.mask, list) and not mask.crowd:
        runs = polygons_or_runs([np.asarray(ring, np.float64).reshape(-1, 2) for ring in mask.mask], runs)
    box = coco_mask.toBbox(rle).tolist()
    return {"segmentation": runs, "area": int(coco_mask.area(rle)), "bbox": box, "iscrowd": int(mask.crowd)}
