"""Boundary IoU of two masks, and the pair scores of Boundary AP (Cheng et al., CVPR 2021, arXiv 2103.16562).

The boundary of a mask is its inner band: the pixels whose chessboard distance to the nearest pixel outside the mask is
at most d = 2 % of the image diagonal. What lies beyond the image counts as outside.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from tqdm import tqdm

from eval.crops import decode_boxes
from sharpcontour.errors import InputError
from sharpcontour.masks.run_lengths import RLE

_AT_ONCE = 256  # pairs of masks decoded together at most
_PIXELS_AT_ONCE = 2**27  # of their images, a byte each at most
_WORTH = 16384  # pairs, about a second's work: from there on another process gains more than its start takes
DILATION_RATIO = 0.02  # of the image diagonal; the value of the Boundary IoU paper for COCO and LVIS


def mask_boundary(mask: np.ndarray, dilation_ratio: float = DILATION_RATIO) -> np.ndarray:
    """The inner boundary band of a mask.

    Args:
        mask: (height, width) of the whole image, bool or 0 and non-zero.
        dilation_ratio: width of the band as a share of the image diagonal; the band is at least one pixel wide.

    Returns:
        (height, width) bool.

    Raises:
        InputError: if the mask is not two-dimensional, or the ratio is not positive.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise InputError(f"a mask must have the shape (height, width); this one has {mask.shape}")
    inside = (mask != 0).astype(np.uint8)
    height, width = mask.shape
    d = band_width(height, width, dilation_ratio)
    if min(height, width) <= 2 * d:
        return inside.astype(bool)  # too narrow for a pixel deeper than d, or without any
    square = np.ones((2 * d + 1, 2 * d + 1), np.uint8)
    eroded = cv2.erode(inside, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return inside > eroded


def boundary_iou(a: np.ndarray, b: np.ndarray, dilation_ratio: float = DILATION_RATIO) -> float:
    """IoU of the boundary bands of two masks of one image; 0 if both are empty.

    Args:
        a: (height, width) of the whole image, bool or 0 and non-zero.
        b: another mask of that image, likewise.
        dilation_ratio: see :func:`mask_boundary`.

    Raises:
        InputError: if the shapes differ, or for what :func:`mask_boundary` refuses.
    """
    if np.shape(a) != np.shape(b):
        raise InputError(f"two masks of one image must have the same shape; these have {np.shape(a)} and {np.shape(b)}")
    band_a, band_b = mask_boundary(a, dilation_ratio), mask_boundary(b, dilation_ratio)
    union = int(np.count_nonzero(band_a | band_b))
    return int(np.count_nonzero(band_a & band_b)) / union if union else 0.0


def band_width(height: int, width: int, dilation_ratio: float = DILATION_RATIO) -> int:
    """d in pixels: at least 1; a half is rounded to even, as in the reference (375 x 500 has d = 12).

    Raises:
        InputError: if the ratio is not a positive number.
    """
    if not (math.isfinite(dilation_ratio) and dilation_ratio > 0):
        raise InputError(
            f"the dilation ratio must be a positive number, such as {DILATION_RATIO}; got {dilation_ratio}"
        )
    return max(1, round(min(dilation_ratio, 1) * math.sqrt(height**2 + width**2)))  # all of a mask is in a wider band


def boundary_ious(first: Sequence[RLE], second: Sequence[RLE], d: int) -> np.ndarray:
    """Boundary IoU of pairs of overlapping masks on one image, without full-image masks.

    Args:
        first: one mask of each pair; an RLE object that occurs in several pairs is decoded once.
        second: the other mask of each pair.
        d: width of the band, pixels.

    Returns:
        (len(first),) float64.
    """
    masks = {id(rle): rle for rle in (*first, *second)}
    bands = dict(zip(masks, _bands(list(masks.values()), d), strict=True))
    return np.array([_iou(bands[id(a)], bands[id(b)]) for a, b in zip(first, second, strict=True)])


def many_boundary_ious(first: Sequence[RLE], second: Sequence[RLE], widths: np.ndarray, processes: int) -> np.ndarray:
    """Boundary IoU of pairs of overlapping masks on many images, as of :func:`boundary_ious`.

    Args:
        first: one mask of each pair.
        second: the other mask of each pair.
        widths: (len(first),) int, of the band of each pair, pixels.
        processes: at most; of few pairs one makes them all.

    Returns:
        (len(first),) float64.
    """
    order = np.argsort(widths, kind="stable")  # images of one size together, and the pairs of one image
    parts: list[np.ndarray] = []
    for same in np.split(order, np.flatnonzero(np.diff(widths[order])) + 1):
        largest = max((math.prod(first[k]["size"]) for k in same), default=1)
        count = max(min(_AT_ONCE, _PIXELS_AT_ONCE // largest), 1)
        parts += [same[begin : begin + count] for begin in range(0, len(same), count)]
    works = [([first[k] for k in part], [second[k] for k in part], int(widths[part[0]])) for part in parts]
    values = np.zeros(len(first))
    processes = min(processes, 1 + len(first) // _WORTH)
    bar = partial(tqdm, total=len(works), desc="boundaries", unit="part", disable=None, delay=1, leave=False)
    if processes == 1:
        found = [boundary_ious(*work) for work in bar(works)]
    else:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = list(bar(pool.map(boundary_ious, *zip(*works, strict=True))))
    values[order] = np.concatenate([np.zeros(0), *found])
    return values


@dataclass
class _Band:
    """The boundary of one mask, as bits of a :class:`~eval.crops.BitBox`, and how many of them are set."""

    x0: int
    y0: int
    bits: np.ndarray
    area: int


def _bands(rles: Sequence[RLE], d: int) -> list[_Band]:
    """What is left of each mask without its erosion by a square: along the columns by its runs, then along the rows."""
    bands = []
    for box in decode_boxes(rles, d):
        box.inside[d:-d] ^= _eroded_rows(box.eroded, 2 * d + 1)
        bands.append(_Band(box.x0, box.y0, box.inside, _popcount(box.inside)))
    return bands


def _eroded_rows(bits: np.ndarray, window: int) -> np.ndarray:
    """The bits that are set in all rows k to k + ``window`` - 1, for each k that has as many: (n, m) to (>= 0, m)."""
    have = 1
    while 2 * have <= window:
        bits, have = bits[have:] & bits[:-have], 2 * have
    more = window - have
    return bits[more:] & bits[:-more] if more else bits


def _popcount(bits: np.ndarray) -> int:
    return int(cv2.norm(bits, cv2.NORM_HAMMING)) if bits.size else 0


def _iou(a: _Band, b: _Band) -> float:
    x0, y0 = max(a.x0, b.x0), max(a.y0, b.y0)
    x1 = min(a.x0 + len(a.bits), b.x0 + len(b.bits))
    y1 = min(a.y0 + 8 * a.bits.shape[1], b.y0 + 8 * b.bits.shape[1])
    of_a, of_b = (band.bits[x0 - band.x0 : x1 - band.x0, (y0 - band.y0) // 8 : (y1 - band.y0) // 8] for band in (a, b))
    intersection = _popcount(of_a & of_b)
    return intersection / (a.area + b.area - intersection)
