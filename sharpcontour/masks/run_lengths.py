"""COCO's run-length encoding: written from changes or crops, read many at once.

Run lengths go down the columns, alternate between 0 and 1, and begin with 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from pycocotools import mask as coco_mask


class RLE(TypedDict):
    """The compressed COCO run lengths of one mask."""

    size: list[int]  # height and width of the image
    counts: bytes | str  # bytes as pycocotools has them, text as files do


def counts_of(rle: RLE) -> bytes:
    """The compressed counts of a mask as bytes."""
    counts = rle["counts"]
    return counts.encode("ascii") if isinstance(counts, str) else counts


def rles_to_masks(rles: Sequence[RLE], height: int, width: int) -> np.ndarray:
    """K compressed COCO RLEs as (K, height, width) bool."""
    masks = np.empty((len(rles), height, width), bool)
    for mask, rle in zip(masks, rles, strict=True):  # pycocotools' own decoding warns under NumPy 2
        mask[:] = decode_columns(decode_counts(rle["counts"]), height, 0, width)
    return masks


def changes_to_rle(changes: np.ndarray, height: int, width: int) -> RLE:
    """The compressed COCO RLE of a mask that, read column by column, begins with 0 and changes at these pixels.

    Args:
        changes: ascending int64; one at height * width, behind the last pixel, says nothing.
        height, width: of the image.
    """
    changes = changes[changes < height * width]
    counts = np.diff(changes, prepend=0, append=height * width)
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def crop_to_rle(mask: np.ndarray, x0: int, y0: int, height: int, width: int) -> RLE:
    """A compressed COCO RLE of an image (height, width) in which ``mask``, (h, w) bool, lies at x0, y0."""
    rows, columns = mask.shape
    if rows < height:  # a column ends inside the image, or the next one begins below its top
        mask = np.concatenate([mask, np.zeros((1, columns), bool)])
    values = np.concatenate([[False], mask.T.ravel()])
    where = np.flatnonzero(values[1:] != values[:-1])
    column, row = np.divmod(where, max(mask.shape[0], 1))
    changes = (x0 + column) * height + y0 + row
    if rows == height and len(changes) % 2:  # the last column is inside down to its end
        changes = np.append(changes, (x0 + columns) * height)
    return changes_to_rle(changes, height, width)


def decode_counts(counts: bytes | str) -> np.ndarray:
    """Run lengths (int64) of a compressed COCO RLE, alternating 0 and 1 and beginning with 0.

    Raises:
        ValueError: where the last number has no end, or a character is not ASCII. Nothing else is checked.
    """
    data = counts.encode("ascii") if isinstance(counts, str) else counts
    if not data or (data[-1] - 48) & 32:
        raise ValueError("run lengths are cut short")
    return run_lengths([data])[0]


def decode_columns(runs: np.ndarray, height: int, first: int, last: int) -> np.ndarray:
    """The columns ``first`` to ``last`` - 1 of run lengths (n,) of an image, (height, last - first) bool."""
    ends = np.cumsum(runs).clip(first * height, last * height)
    return np.repeat(np.arange(len(runs)) % 2 == 1, np.diff(ends, prepend=first * height)).reshape(-1, height).T


def run_lengths(counts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Decode the counts of many well-formed RLEs in one pass.

    Each number is a little-endian base-32 string of characters from 48 up (bit 5: more follows, bit 4 of the last:
    negative), and from the fourth on a difference to the number two before.

    Returns:
        runs (S,) int64, and offsets (n + 1,): the runs of RLE i are ``runs[offsets[i]:offsets[i + 1]]``.
    """
    digits = np.frombuffer(b"".join(counts), np.uint8) - np.uint8(48)
    last = np.flatnonzero((digits & 32) == 0)
    length = np.diff(last, prepend=-1)
    numbers = (digits[last] & 31).astype(np.int64)
    numbers -= (numbers & 16) << 1
    for place in range(1, int(length.max(initial=1))):
        longer = np.flatnonzero(length > place)
        numbers[longer] = numbers[longer] << 5 | (digits[last[longer] - place] & 31)
    offsets = np.searchsorted(last, np.cumsum([0, *map(len, counts)]))
    return _undo_differences(numbers, offsets), offsets


def _undo_differences(numbers: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Numbers 1, 3, 5, ... and 2, 4, 6, ... of every mask are two running sums; number 0 stands as it is."""
    begins, ends = offsets[:-1], offsets[1:]
    first = numbers[begins]
    numbers[begins] = 0
    for parity in (0, 1):  # of the place among all numbers: a sum over every other one goes on from mask to mask
        sums = np.cumsum(numbers[parity::2])
        start, stop = (begins + 1 - parity) // 2, (ends + 1 - parity) // 2
        before = np.concatenate([[0], sums])[start]
        numbers[parity::2] = sums - np.repeat(before, stop - start)
    numbers[begins] = first
    return numbers
