"""Reading image files, each from its bytes: OpenCV is never given a name, since one that is not UTF-8 crashes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from sharpcontour.errors import InputError
from sharpcontour.io.headers import LENGTH, Size, avif_turn, header_size, is_heic, is_image, tiff_orientation

T = TypeVar("T")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
"""Endings, in small letters, of the files of a folder that are taken for images before they are looked at."""

MAX_PIXELS = 2**28  # of one image: 16384 x 16384, 768 MiB as RGB


class ImageError(InputError):
    """An image file cannot be used; others may well be."""


class WrongSizeError(ImageError):
    """An image has another size than it should have."""


class UnreadableError(ImageError):
    """An image is missing, is none, is too large, or is cut short."""


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder by name, also what is called one and is none, so that reading it tells why.

    Photographs in HEIC, which cannot be read, are among them where no other image has their name. Hidden files are not.

    Raises:
        InputError: where there is none.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found = [path for path in files if path.suffix.lower() in SUFFIXES or looks_like_image(path)]
    stems = {path.stem for path in found}
    found += [path for path in files if path.suffix.lower() in (".heic", ".heif") and path.stem not in stems]
    if not found:
        raise InputError(f"{folder}: holds no image of a kind that is read: JPEG, PNG, TIFF, WebP, ...")
    return sorted(found)


def looks_like_image(path: Path) -> bool:
    """Whether a file is of a kind that :func:`read_image` reads, by its first bytes; False where it cannot be read."""
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with open(path, "rb") as file:
            return is_image(file.read(LENGTH))
    except (OSError, ValueError):
        return False


def read_image(
    path: str | Path, upright: bool = False, size: Size | None = None, said: str = "the annotations say"
) -> np.ndarray:
    """Any image file as (H, W, 3) uint8 RGB: grey is repeated, alpha dropped, 16 bits are reduced.

    Its size is looked at before it is decoded, so neither one of billions of pixels nor one of another size than
    expected takes memory.

    Args:
        path: of the file: JPEG, PNG, BMP, GIF, TIFF, WebP, PNM, JPEG 2000 or AVIF.
        upright: turn a photograph as its EXIF data say; annotations of data sets refer to the pixels as stored.
        size: (height, width) that it must have; None takes any size of up to :data:`MAX_PIXELS` pixels.
        said: who says so, for the error message.

    Raises:
        WrongSizeError: if it has not ``size``.
        UnreadableError: if it is missing, no image, too large, or cut short.
    """
    flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(_decode(path, flags, size, ("the image has", said)), cv2.COLOR_BGR2RGB)


def read_fitting(path: str | Path, fit: Callable[[Size], T]) -> tuple[np.ndarray, T, bool]:
    """A photograph in that orientation that something else fits: (H, W, 3) uint8 RGB, what came of it, if as stored.

    Upright, as its EXIF data say, is tried first, then its pixels as they are stored. Where both have one size, nothing
    can tell them apart, and upright is taken.

    Args:
        path: of a file that :func:`read_image` reads.
        fit: given the (height, width) of an orientation; raises InputError where it does not fit.

    Raises:
        UnreadableError: as of :func:`read_image`.
        InputError: of ``fit`` for upright, where neither orientation fits.
    """
    upright = read_image(path, upright=True)
    try:
        return upright, fit((upright.shape[0], upright.shape[1])), False
    except InputError as error:
        if not Path(path).is_file():  # a pipe can be read once
            raise
        stored = read_image(path)
        if stored.shape == upright.shape:
            raise
        try:
            return stored, fit((stored.shape[0], stored.shape[1])), True
        except InputError:
            raise error from None


def read_values(path: str | Path, size: Size | None = None) -> np.ndarray:
    """The values of a mask or a label map as they are stored: (H, W), or (H, W, channels), of any type.

    Args:
        path: of an image file, of the kinds that :func:`read_image` reads.
        size: (height, width) of the image that it belongs to; None takes any size.

    Raises:
        WrongSizeError: if it has not ``size``.
        UnreadableError: if it is missing, no image, too large, or cut short.
    """
    return _decode(path, cv2.IMREAD_UNCHANGED, size, ("the mask is", "its image"))


def _decode(path: str | Path, flags: int, size: Size | None, words: tuple[str, str]) -> np.ndarray:
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UnreadableError(f"{path}: no such image") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UnreadableError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    stored = header_size(data)
    if stored is not None:
        # Either way round, for a TIFF is turned as it says; exactly below.
        if size is not None and sorted(stored) != sorted(size):
            raise _wrong_size(path, stored, size, words)
        if stored[0] * stored[1] > MAX_PIXELS:
            raise UnreadableError(
                f"{path}: the image has {stored[1]} x {stored[0]} pixels, more than the {MAX_PIXELS} that are read; "
                "make it smaller, or cut it into parts"
            )
    # OpenCV leaves an AVIF as it is stored; should a later one turn it, not twice.
    turn = avif_turn(data)
    decoded = flags if turn == (0, None) else flags | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = None if stored is None else cv2.imdecode(np.frombuffer(data, np.uint8), decoded)
    except cv2.error:
        image = None
    if image is None:
        kind = "is no image, or cut short; replace it" if data else "is empty; replace it"
        if data[:2] in (b"II", b"MM"):  # OpenCV makes colours of no other TIFF
            kind = "is cut short, or a TIFF of floats or other samples that are no colours; save it in 8 or 16 bits"
        if is_heic(data):
            kind = "is HEIC, which is not read; save it as JPEG or PNG"
        raise UnreadableError(f"{path}: the file {kind}")
    if flags == cv2.IMREAD_COLOR:
        image = _turned(image, *turn)
    else:  # all others are of pixels as stored, but OpenCV turns a TIFF all the same
        image = _as_stored(image, tiff_orientation(data))
    if size is not None and image.shape[:2] != tuple(size):
        raise _wrong_size(path, image.shape, size, words)
    return image


def _turned(image: np.ndarray, quarters: int, axis: int | None) -> np.ndarray:
    turned = np.rot90(image, quarters)
    return np.ascontiguousarray(turned if axis is None else np.flip(turned, axis))


def _as_stored(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo what an orientation, 1 to 8 as EXIF data count, has done to an image."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 6, 7) else 1
    columns = -1 if orientation in (2, 3, 7, 8) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def _wrong_size(path: str | Path, found: tuple[int, ...], size: Size, words: tuple[str, str]) -> WrongSizeError:
    return WrongSizeError(
        f"{path}: {words[0]} {found[1]} x {found[0]} pixels, {words[1]} {size[1]} x {size[0]}; correct one of them"
    )
