"""Compressed run lengths -> the pixels of each object's box, many masks in one pass and never a full image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sharpcontour.masks.run_lengths import RLE, counts_of, run_lengths


def decode_boxes(rles: Sequence[RLE], align: int = 1) -> list[tuple[int, int, np.ndarray]]:
    """Decode well-formed masks, all in one pass, each inside its box only.

    Args:
        rles: the masks.
        align: heights of boxes are rounded up to a multiple of it, with zeros below, where that is possible.

    Returns:
        x0, y0 of each box and its pixels, uint8 (box width, box height): transposed, as run lengths go down columns. An
        empty mask has the shape (0, 0).
    """
    runs, offsets = run_lengths([counts_of(rle) for rle in rles])
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
