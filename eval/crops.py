"""Compressed run lengths -> the pixels of each object's box as bits, many masks in one pass and never a full image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sharpcontour.masks.run_lengths import RLE, counts_of, run_lengths


@dataclass
class BitBox:
    """The pixels of one mask inside its box, eight of a column in a byte.

    Attributes:
        x0, y0: where the box begins, pixels; y0 is a multiple of 8.
        inside: (box width, box height / 8) uint8 bits of the mask, transposed, as run lengths go down columns.
        eroded: the same of the mask eroded along its columns.
    """

    x0: int
    y0: int
    inside: np.ndarray
    eroded: np.ndarray


def decode_boxes(rles: Sequence[RLE], depth: int) -> list[BitBox]:
    """Decode well-formed masks, all in one pass, each inside its box only.

    Args:
        rles: the masks.
        depth: pixels of a column that must be inside above and below a pixel that stays. What lies beyond the image is
            outside.

    Returns:
        A box for each mask, as high as whole bytes need; that of an empty mask has no pixels.
    """
    mask, column, top, bottom = _column_runs(rles)
    nothing = np.zeros((0, 0), np.uint8)
    boxes = [BitBox(0, 0, nothing, nothing)] * len(rles)
    if len(mask) == 0:
        return boxes
    new = np.diff(mask, prepend=-1) > 0
    begin, of = np.flatnonzero(new), np.cumsum(new) - 1  # a mask's first run, and which mask each run is of
    x0, y0 = column[begin], np.minimum.reduceat(top, begin) & -8
    columns = np.append(column[begin[1:] - 1], column[-1]) + 1 - x0
    rows = (np.maximum.reduceat(bottom, begin) - y0 + 7) & -8
    places = np.concatenate([[0], np.cumsum(columns * rows)])
    above = (places[:-1] - y0)[of] + (column - x0[of]) * rows[of]  # place of row 0 of each run's column
    deep = bottom - top > 2 * depth
    inside = _packed(above + top, above + bottom, int(places[-1]))
    eroded = _packed((above + top)[deep] + depth, (above + bottom)[deep] - depth, int(places[-1]))
    shapes = zip(mask[begin].tolist(), x0.tolist(), y0.tolist(), columns.tolist(), strict=True)
    for (k, x, y, width), a, b in zip(shapes, (places[:-1] // 8).tolist(), (places[1:] // 8).tolist(), strict=True):
        boxes[k] = BitBox(x, y, inside[a:b].reshape(width, -1), eroded[a:b].reshape(width, -1))
    return boxes


def _column_runs(rles: Sequence[RLE]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The runs of all masks, cut at the ends of columns: index of the mask, column, first row and row behind the last.

    All int64 and in the order of the pixels; no two runs touch in a column.
    """
    runs, offsets = run_lengths([counts_of(rle) for rle in rles])
    mask = np.repeat(np.arange(len(rles)), np.diff(offsets))
    sums, first = np.cumsum(runs), offsets[:-1]
    ends = sums - (sums[first] - runs[first])[mask]  # counted from each mask's first pixel
    inside = ((np.arange(len(runs)) - offsets[mask]) & 1 == 1) & (runs > 0)
    mask, ends, starts = mask[inside], ends[inside], (ends - runs)[inside]
    # Files of other tools may have runs with nothing in between.
    if len(touching := np.flatnonzero((starts[1:] == ends[:-1]) & (mask[1:] == mask[:-1]))):
        mask, starts, ends = (np.delete(mask, touching), np.delete(starts, touching + 1), np.delete(ends, touching))
    height = np.array([rle["size"][0] for rle in rles])[mask]
    column, last = starts // height, (ends - 1) // height
    top, bottom = starts - column * height, ends - last * height
    if (column == last).all():  # as usual: nothing is to be cut
        return mask, column, top, bottom
    pieces = last - column + 1  # a run from the lower border goes on at the upper one of the next column
    of = np.repeat(np.arange(len(mask)), pieces)
    place = np.arange(len(of)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    top = np.where(place == 0, top[of], 0)
    bottom = np.where(place == pieces[of] - 1, bottom[of], height[of])
    return mask[of], column[of] + place, top, bottom


def _packed(starts: np.ndarray, ends: np.ndarray, size: int) -> np.ndarray:
    """Bits that are 1 from every start to its end, in ``size`` / 8 bytes."""
    edges = np.concatenate([[0], np.stack([starts, ends], 1).ravel(), [size]])
    return np.packbits(np.repeat(np.arange(len(edges) - 1) & 1 == 1, np.diff(edges)))
