"""Large annotation files are read once: what was packed of one lies in a file that all processes map from then on.

The file is beside the annotations, or below ``~/.cache/sharpcontour`` where their folder cannot be written. It is used
only where it was made by this version, from annotations of this size, time and content, and is undamaged.
"""

from __future__ import annotations

import contextlib
import glob
import os
import sys
import warnings
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

from data.annotations import Problems
from data.packed import OBJECT_ARRAYS, PackedObjects
from data.packing import PackedAnnotations, pack_annotations
from sharpcontour.errors import InputError
from sharpcontour.io.array_file import ArrayFile, DamagedError, checked, digest_of, told, write_arrays
from sharpcontour.io.files import TEMPORARY, UnwritableError
from sharpcontour.io.lock import waited_lock
from sharpcontour.io.long_json import is_large

FORMAT = 2  # to be raised with every change of what is read from annotations, or of how it is packed
ENDING = ".sharpcontour_cache"
WAIT = 1800.0  # s, for another process that reads the same annotations
_IMAGE_ARRAYS = ("image_ids", "sizes", "names")


def packed_annotations(path: Path) -> PackedAnnotations:
    """The packed annotations of a file: of a large one as they were packed before, if they were.

    Of several processes that need a large file at once, one reads it, and the others wait for it. Where nothing can be
    written, each reads the file itself.

    Raises:
        InputError: see :func:`data.annotations.open_coco`.
    """
    if not path.is_file() or not is_large(path):
        return pack_annotations(path)
    source = _state(path)
    places = _places(path)
    for place in places:
        if (found := _load(place, source)) is not None:
            return found
    with contextlib.ExitStack() as stack:
        place, reason = _locked(path, places, stack)
        if not reason:
            return _load(place, source, tell=True) or _renewed(path, place, source)
    warnings.warn(f"{path}: read without a cache: {reason}", stacklevel=1)
    return pack_annotations(path)


def _locked(path: Path, places: list[Path], stack: contextlib.ExitStack) -> tuple[Path, str]:
    """The first place that can be written, locked for this process; and in words, if there is none, why."""
    reasons = []
    for place in places:
        lock = place.with_name(place.name + ".lock")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if stack.enter_context(waited_lock(lock, 0)):
                return place, ""
            if os.environ.get("LOCAL_RANK", "0") == "0":  # torchrun's: one of a machine's processes is enough to say it
                print(f"waiting for the process that reads {path}", file=sys.stderr, flush=True)
            if stack.enter_context(waited_lock(lock, WAIT)):
                return place, ""
            return place, f"another process has been reading it for {WAIT / 60:.0f} minutes"
        except OSError as error:
            reasons.append(f"{place.parent}: cannot be written ({error.strerror})")
    return places[0], "; ".join(reasons)


def _places(path: Path) -> list[Path]:
    """Where the cache of a file may be, the best place first."""
    path = Path(os.path.realpath(path))
    places = [path.with_name(path.name + ENDING)]
    try:
        folder = Path.home() / ".cache" / "sharpcontour"
    except RuntimeError:  # a user without a home
        return places
    key = blake2b(os.fsencode(path), digest_size=8).hexdigest()
    return [*places, folder / f"{path.name}.{key}{ENDING}"]


def _state(path: Path) -> dict[str, Any]:
    """What tells one state of a file from another."""
    with open(path, "rb") as file:
        return {**_size_and_time(path), "blake2b": digest_of(file)}


def _size_and_time(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _load(place: Path, source: dict[str, Any], tell: bool = False) -> PackedAnnotations | None:
    """The contents of a cache; None, with a warning if ``tell``, where it does not fit. Silent where there is none."""
    try:
        about = told(place)  # cheap: before every byte is looked at
        if about["format"] != FORMAT:
            wrong = "it is of another version"
        elif about["source"] != source:
            wrong = "the annotations have changed"
        else:
            file = checked(place)
            if told(place) == about:  # else another process has put a new one in its place meanwhile
                return _unpacked(file, about)
            wrong = "it was replaced while it was read"
    except FileNotFoundError:
        return None
    except (DamagedError, KeyError, TypeError):
        wrong = "it is damaged"
    except OSError as error:
        wrong = f"it cannot be read ({error.strerror})"
    if tell:
        warnings.warn(f"{place}: made anew, since {wrong}", stacklevel=1)
    return None


def _unpacked(file: ArrayFile, about: dict[str, Any]) -> PackedAnnotations:
    arrays = file.arrays()
    return PackedAnnotations(
        PackedObjects(**{name: arrays[name] for name in OBJECT_ARRAYS}, file=file),
        **{name: arrays[name] for name in _IMAGE_ARRAYS},
        categories=about["categories"],
        problems=Problems(**about["problems"]),
        crowds=about["crowds"],
        ignored=about["ignored"],
    )


def _renewed(path: Path, place: Path, source: dict[str, Any]) -> PackedAnnotations:
    """Read a file and write its cache; what was read, where that fails."""
    for stray in place.parent.glob(f".{glob.escape(place.name)}.*{TEMPORARY}"):  # of a process that was killed
        with contextlib.suppress(OSError):
            stray.unlink()
    packed = pack_annotations(path)
    if source | _size_and_time(path) != source:
        raise InputError(f"{path}: was changed while it was read; start again")
    arrays = {name: getattr(packed.objects, name) for name in OBJECT_ARRAYS}
    arrays |= {name: getattr(packed, name) for name in _IMAGE_ARRAYS}
    about = {
        "format": FORMAT,
        "source": source,
        "categories": packed.categories,
        "problems": asdict(packed.problems),
        "crowds": packed.crowds,
        "ignored": packed.ignored,
    }
    try:
        write_arrays(place, arrays, about)
    except UnwritableError as error:
        warnings.warn(f"{path}: read without a cache: {error}", stacklevel=1)
        return packed
    print(
        f"{place}: holds what was read from {path.name} for later starts; it may be removed between runs",
        file=sys.stderr,
    )
    del packed, arrays
    return _load(place, source) or pack_annotations(path)
