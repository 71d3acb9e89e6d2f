"""COCO segmentations (polygons, run lengths) -> compressed RLE -> pixels of the object's box, never a full image.

A compressed RLE is {"size": [height, width], "counts": bytes}: run lengths in column-major order, alternating 0 and 1
and beginning with 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sharpcontour.masks.run_lengths import run_lengths

RLE = dict[str, Any]

CHUNK = 512  # RLEs decoded in one pass: enough to spread the overhead, few enough to stay in the cache
_COUNTS = re.compile(rb"(?:[P-o]{0,6}[0-O])+")  # numbers of at most seven characters, the last without bit 5


def to_rle(segmentation: Any, height: int, width: int) -> RLE:
    """A compressed RLE of any of COCO's three forms.

    Args:
        segmentation: list of polygons [x0, y0, x1, y1, ...] (their union), or {"size", "counts"} with the run lengths
            as a list or as a compressed string.
        height: of the image, pixels.
        width: of the image, pixels.

    Raises:
        ValueError: with the reason, where the segmentation is broken. What a compressed string holds is not looked at;
            :func:`find_broken` does that for many at once.
    """
    if isinstance(segmentation, list):
        _check_polygons(segmentation, 10 * max(height, width))
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise ValueError("segmentation is neither a list of polygons nor an RLE")
    size = segmentation.get("size")
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise ValueError(f"mask size {size} is not the image's [{height}, {width}]")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        if not all(isinstance(run, int) and run >= 0 for run in counts) or sum(counts) != height * width:
            raise ValueError(f"run lengths do not add up to {height} x {width} pixels")
        return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    if isinstance(counts, str):
        counts = counts.encode("utf-8")
    if not isinstance(counts, bytes):
        raise ValueError("counts is neither a list nor a string")
    return {"size": [height, width], "counts": counts}


def _check_polygons(polygons: list[Any], reach: float) -> None:
    """ValueError for what pycocotools would take for something else, or never come back from."""
    if not polygons:
        raise ValueError("segmentation is empty")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon is not a list of three or more x, y pairs")
        if not all(isinstance(value, (int, float)) and -reach <= value <= reach for value in polygon):
            raise ValueError("a polygon has coordinates that are not numbers, or lie far outside the image")


def find_broken(rles: Sequence[RLE]) -> list[int]:
    """Indices of compressed RLEs that are not well formed or do not fill their image exactly."""
    return measure(rles)[1]


def measure(rles: Sequence[RLE]) -> tuple[np.ndarray, list[int]]:
    """Pixels of each mask (n,) int64, and the indices of broken ones as of :func:`find_broken`; those have 0."""
    areas, broken = np.zeros(len(rles), np.int64), []
    for begin in range(0, len(rles), CHUNK):
        chunk = range(begin, min(begin + CHUNK, len(rles)))
        formed = _well_formed([rles[i]["counts"] for i in chunk])
        broken += [i for i, right in zip(chunk, formed, strict=True) if not right]
        index = [i for i, right in zip(chunk, formed, strict=True) if right]
        if not index:
            continue
        runs, offsets = run_lengths([rles[i]["counts"] for i in index])
        starts = offsets[:-1]
        odd = (np.arange(len(runs)) - np.repeat(starts, np.diff(offsets))) & 1
        pixels = np.array([math.prod(rles[i]["size"]) for i in index])
        wrong = (np.add.reduceat(runs, starts) != pixels) | (np.minimum.reduceat(runs, starts) < 0)
        areas[index] = np.where(wrong, 0, np.add.reduceat(runs * odd, starts))
        broken += [index[k] for k in np.flatnonzero(wrong)]
    return areas, sorted(broken)


def _well_formed(counts: Sequence[bytes]) -> list[bool]:
    """Which strings are made of numbers; usually all, which one look at them together tells."""
    digits = np.frombuffer(b"".join(counts), np.uint8) - np.uint8(48)  # what is below wraps around
    more = (digits & 32) > 0
    ends = np.cumsum([len(text) for text in counts]) - 1
    usual = all(counts) and digits.max() < 64 and not more[ends].any()
    if usual and np.diff(np.flatnonzero(~more), prepend=-1).max() <= 7:
        return [True] * len(counts)
    return [_COUNTS.fullmatch(text) is not None for text in counts]


def decode_boxes(rles: Sequence[RLE], align: int = 1) -> list[tuple[int, int, np.ndarray]]:
    """Decode well-formed masks, all in one pass, each inside its box only.

    Args:
        rles: the masks.
        align: heights of boxes are rounded up to a multiple of it, with zeros below, where that is possible.

    Returns:
        x0, y0 of each box and its pixels, uint8 (box width, box height): transposed, as run lengths go down columns. An
        empty mask has the shape (0, 0).
    """
    runs, offsets = run_lengths([rle["counts"] for rle in rles])
    sums = np.cumsum(runs)
    counts = np.diff(offsets)
    heights = np.repeat([rle["size"][0] for rle in rles], counts)
    mask = np.repeat(np.arange(len(rles)), counts)
    ends = sums - np.repeat(sums[offsets[:-1]] - runs[offsets[:-1]], counts)  # counted from each mask's first pixel
    inside = ((np.arange(len(runs)) - offsets[mask]) & 1 == 1) & (runs > 0)
    mask, height, ends = mask[inside], heights[inside], ends[inside]
    starts = ends - runs[inside]
    column, end_column = starts // height, (ends - 1) // height
    top, bottom = starts - column * height, ends - end_column * height
    # A run from the image's lower border on to the next column's upper one: the box is as high as the image.
    top, bottom = np.where(column < end_column, 0, top), np.where(column < end_column, height, bottom)
    found, begin = np.unique(mask, return_index=True)
    if len(found) == 0:
        return [(0, 0, np.zeros((0, 0), np.uint8)) for _ in rles]
    x0, y0 = np.minimum.reduceat(column, begin), np.minimum.reduceat(top, begin)
    columns = np.maximum.reduceat(end_column, begin) + 1 - x0
    rows = np.maximum.reduceat(bottom, begin) - y0
    # Where a run goes on in the next column nothing may come in between.
    joined = np.maximum.reduceat(end_column - column, begin) > 0
    rows = np.where(joined, rows, -(-rows // align) * align)
    places = np.concatenate([[0], np.cumsum(columns * rows)])
    of = np.repeat(np.arange(len(found)), np.diff(np.append(begin, len(mask))))  # index in ``found`` of each run
    first = places[of] + (column - x0[of]) * rows[of] + starts - column * height - y0[of]
    pixels = _fill(first, first + ends - starts, int(places[-1]))
    boxes = {
        int(k): (int(x), int(y), pixels[a:b].reshape(w, h))
        for k, x, y, w, h, a, b in zip(found, x0, y0, columns, rows, places[:-1], places[1:], strict=True)
    }
    return [boxes.get(k, (0, 0, np.zeros((0, 0), np.uint8))) for k in range(len(rles))]


def _fill(starts: np.ndarray, ends: np.ndarray, size: int) -> np.ndarray:
    """A vector that is 1 from every start to its end, uint8."""
    edges = np.empty(2 * len(starts) + 2, np.int64)
    edges[0], edges[-1] = 0, size
    edges[1:-1:2], edges[2:-1:2] = starts, ends
    values = np.zeros(len(edges) - 1, np.uint8)
    values[1::2] = 1
    return np.repeat(values, np.diff(edges))
