"""Masks in image files and in arrays of pixels: which values mean an object, and which mean how much of one.

The rules, in this order; 0 or black is always the background:

    an alpha channel that is not the same everywhere  the mask of one object, cut at one half; but of a palette of few
                                                      indices only where 0 can be seen, or an object shines through
    one value besides 0                               the mask of one object
    a palette                                         each index an object; 255 beside others is the border of VOC, and
                                                      what is transparent is background
    a colour picture of few colours                   each colour an object
    1, 2, ... n, of which few may be missing          each value an object
    many values, or ones that shade off               a soft mask of one object, cut at one half
    a few values, each of an area                     each value an object
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sharpcontour.errors import InputError
from sharpcontour.formats.named_masks import NamedMask, Reading, Size, label_rles
from sharpcontour.io.images import read_values
from sharpcontour.masks.run_lengths import crop_to_rle

MANY = 64  # values of 256, from which a gray picture is a soft mask unless it counts 1, 2, ...; or indices, a picture
NEARLY = 0.9  # of 1, 2, ... n are there, at least, where values count objects
FEW = 8  # values, up to which a gray picture may have objects of its own shades
LEVEL = 0.3  # of an object's pixels have their value's neighbours to the right and below, at least
STEP = 32  # values, from one pixel of a soft mask to the next, at most in the median
COLOURS = 255  # different ones in a picture of objects, at most
VOID = 255  # index of a palette that PASCAL VOC draws around objects
_PALETTE = 3  # a PNG's type of colour


def read_image_masks(path: Path, size: Size) -> Reading:
    """The objects of a mask's file: PNG, or any other kind of image.

    Args:
        path: of the file.
        size: of the photograph.

    Raises:
        WrongSizeError: naming both sizes.
        InputError: where it cannot be read, or is a picture and no mask.
    """
    values = read_values(path, size)
    data = path.read_bytes()
    if _has_more(data, values.shape[:2]):
        raise InputError(f"{path}: holds more than one picture, and only the first can be read; save each as a file")
    indices = _palette_indices(data) if data[1:4] == b"PNG" and data[25] == _PALETTE else None
    if values.ndim == 3 and values.shape[2] == 4 and values[..., 3].min() < values[..., 3].max():
        alpha = values[..., 3]
        if indices is None or not _tells_objects(indices, alpha):
            seen = alpha > 0 if alpha[alpha > 0].min() == alpha.max() else _upper_half(alpha)
            return one_object(path.stem, seen, "its alpha channel")
        indices = np.where(alpha > 0, indices, 0)
    if indices is not None:
        return _of_palette(path.stem, indices)
    if values.ndim == 3:
        values = values[..., :3]
        if (values == values[..., :1]).all():
            values = values[..., 0]
    return _of_colours(path, values) if values.ndim == 3 else masks_of_values(path.stem, values, str(path))


def _has_more(data: bytes, size: tuple[int, ...]) -> bool:
    """Whether an image file has a second page or frame of that size; a smaller one is a preview."""
    if data[1:4] == b"PNG":
        head = data[: data.find(b"IDAT")]
        place = head.find(b"acTL")
        return place > 0 and int.from_bytes(head[place + 4 : place + 8], "big") > 1
    if data[:2] not in (b"II", b"MM") and data[:3] != b"GIF" and data[8:12] != b"WEBP":
        return False
    try:
        _, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=(0, 2))
    except (cv2.error, TypeError):  # before 4.11 OpenCV has no range
        return False
    return len(pages) > 1 and pages[1].shape[:2] == tuple(size)


def masks_of_values(stem: str, values: np.ndarray, where: str, single: bool = False) -> Reading:
    """The objects of one array of pixels.

    Args:
        stem: what to call them, with the value of each behind it where there are several.
        values: (H, W): bool; integers, a label map, a mask or a soft mask; or floats from 0 to 1, a soft mask.
        where: file and entry, for error messages.
        single: whether integers are one mask, soft or not, whatever number stands for inside.

    Raises:
        InputError: for values that are no mask.
    """
    if values.dtype == bool:
        return one_object(stem, values, "a mask")
    if values.dtype.kind == "f":
        if not ((values >= 0) & (values <= 1)).all():
            raise InputError(f"{where}: its numbers are not from 0 to 1; save bool, for instance logits > 0")
        return one_object(stem, values >= 0.5, "a soft mask, cut at 0.5")
    if values.dtype.kind not in "ui" or (values.min(initial=0) < 0 and not single):
        raise InputError(f"{where}: is {values.dtype} with negative values or no numbers; save bool, or ids 0, 1, ...")
    present = np.unique(values[values > 0])
    if len(present) <= 1:
        return one_object(stem, values > 0, "a mask")
    if values.dtype in (np.uint8, np.uint16) and _is_soft(values, present):
        how = f"a soft mask of {len(present)} values, cut at {_half(values.dtype)}"
        return one_object(stem, _upper_half(values), how)
    return one_object(stem, values > 0, "a mask") if single else _labelled(stem, values, "each value an object")


def one_object(stem: str, inside: np.ndarray, how: str) -> Reading:
    """A mask (H, W) of bool as the only object of its file."""
    return Reading([NamedMask(stem, crop_to_rle(inside, 0, 0, *inside.shape))], how)


def _labelled(stem: str, ids: np.ndarray, how: str, name: Callable[[int], str] = str) -> Reading:
    return Reading([NamedMask(f"{stem} {name(number)}", rle) for number, rle in label_rles(ids).items()], how)


def _is_soft(values: np.ndarray, present: np.ndarray) -> bool:
    """Whether values, more than one besides 0, tell how much of an object a pixel is, rather than which object."""
    # Inside an object on a label map the neighbours have its value, and a thin one lies alone; where an object shades
    # off, its neighbours have other values.
    between = (values > 0) & (values < present[-1])
    level, uneven = (np.count_nonzero(where & between) for where in (_is_level(values), _is_uneven(values)))
    count = np.count_nonzero(between)
    shaded = bool(level < LEVEL * count and 2 * uneven >= count)
    many = values.dtype == np.uint8 and len(present) > MANY and _is_gradual(values)
    if len(present) >= NEARLY * int(present[-1]):
        return many and shaded
    if present[-1] < _half(values.dtype) and (len(present) <= FEW or not shaded):
        return False  # as a soft mask it would hold nothing
    most = np.iinfo(values.dtype).max
    full = bool(2 * np.count_nonzero(values == most) >= np.count_nonzero(values))
    return many or shaded or (full and len(present) > FEW)


def _is_level(values: np.ndarray) -> np.ndarray:
    """Where (H, W) values are those of their neighbours to the right and below, (H, W) bool."""
    level = np.zeros(values.shape, bool)
    level[:-1, :-1] = (values[:-1, :-1] == values[1:, :-1]) & (values[:-1, :-1] == values[:-1, 1:])
    return level


def _is_uneven(values: np.ndarray) -> np.ndarray:
    """Where (H, W) values have others but 0 above, below or beside them, (H, W) bool."""
    uneven = np.zeros(values.shape, bool)
    for one, other, found in _meetings(values):
        uneven[one] |= found
        uneven[other] |= found
    return uneven


def _is_gradual(values: np.ndarray) -> bool:
    """Whether values other than 0 differ little from unequal ones beside them, as where an object fades, not its id."""
    steps = []
    for one, other, found in _meetings(values):
        steps.append(np.abs(values[one][found].astype(np.int64) - values[other][found]))
    together = np.concatenate(steps)
    return len(together) > 0 and float(np.median(together)) <= STEP


def _meetings(values: np.ndarray) -> Iterator[tuple[Any, Any, np.ndarray]]:
    """Where unequal values (H, W) but 0 lie below, and then where they lie right of one another.

    Yields:
        Two indices, of the pixels and of their neighbours, and where of these that is so, bool.
    """
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        here, beside = values[one], values[other]
        yield one, other, (here != beside) & (here > 0) & (beside > 0)


def _upper_half(values: np.ndarray) -> np.ndarray:
    """Where integers are at least one half of what they can be; where floats are at least 0.5."""
    return values >= _half(values.dtype)


def _half(dtype: np.dtype) -> float:
    return 0.5 if dtype.kind == "f" else (int(np.iinfo(dtype).max) + 1) // 2


def _tells_objects(indices: np.ndarray, alpha: np.ndarray) -> bool:
    """Whether the indices of a palette are objects on a transparent background, not the colours of a cut-out."""
    hidden = not alpha[indices == 0].any()
    return hidden and bool(np.isin(alpha, (0, 255)).all()) and len(np.unique(indices)) <= MANY


def _of_palette(stem: str, indices: np.ndarray) -> Reading:
    present = np.unique(indices[indices > 0])
    if len(present) <= 1:
        return one_object(stem, indices > 0, "a mask")
    if present[-1] == VOID:
        pixels = int((indices == VOID).sum())
        how = f"each index of its palette an object, but {VOID}: {pixels} pixels of a border of no object"
        return _labelled(stem, np.where(indices == VOID, 0, indices), how)
    return _labelled(stem, indices, "each index of its palette an object")


def _of_colours(path: Path, values: np.ndarray) -> Reading:
    bits = 8 * values.dtype.itemsize
    if values.dtype.kind != "u" or bits > 16:
        raise InputError(f"{path}: is a colour picture of {values.dtype}, no mask; give one of gray values")
    blue, green, red = (values[..., channel].astype(np.int64) for channel in range(3))
    codes = red << 2 * bits | green << bits | blue
    present, place, pixels = np.unique(codes[codes > 0], return_inverse=True, return_counts=True)
    # Objects are flat, and blends at their smooth edges are not.
    flat = np.bincount(place.ravel(), _is_level(codes)[codes > 0], len(present)) >= LEVEL * pixels
    count, blends = len(present), int((~flat).sum())
    if count > COLOURS or (blends > FEW and 2 * blends > count):
        raise InputError(
            f"{path}: is a picture of {count} colours, no mask; give a black and white one, or one with a flat colour "
            "for each object, saved as PNG and without smooth edges"
        )
    digits = 3 * bits // 4
    return _labelled(path.stem, codes, "each colour an object", lambda code: f"#{code:0{digits}x}")


def _palette_indices(data: bytes) -> np.ndarray:
    """The indices (H, W) uint8 of a palette PNG."""
    # OpenCV would turn them into colours; without the palette, and said to be gray, they stay what they are.
    parts, place = [data[:8]], 8
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        chunk = data[place:end]
        if chunk[4:8] == b"IHDR":
            body = chunk[4:17] + b"\0" + chunk[18:21]
            chunk = chunk[:4] + body + zlib.crc32(body).to_bytes(4, "big")
        if chunk[4:8] in (b"IHDR", b"IDAT", b"IEND"):
            parts.append(chunk)
        place = end
    gray = cv2.imdecode(np.frombuffer(b"".join(parts), np.uint8), cv2.IMREAD_UNCHANGED)
    assert gray is not None  # its colours could be read before
    return gray // (255 // (2 ** data[24] - 1))  # fewer than eight bits are spread over all values
