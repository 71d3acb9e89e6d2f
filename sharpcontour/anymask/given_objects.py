"""Objects that are given to be refined, as rings in pixels of their image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sharpcontour.contours.nesting import ring_boxes
from sharpcontour.contours.rasterize import union_of_parts
from sharpcontour.contours.tracing import TracedRings, trace_window
from sharpcontour.contours.types import Ring, Rings
from sharpcontour.masks.run_lengths import decode_columns, decode_counts


@dataclass
class GivenObjects:
    """K objects in pixels of their image.

    Attributes:
        objects: K lists of (n, 2) rings: float32 along pixel edges, or a polygon as it was given, in float64, whose
            pixels rounding would change.
        rings: all of these rings in one piece.
    """

    objects: list[Rings]
    rings: TracedRings

    def __len__(self) -> int:
        return len(self.objects)

    def boxes(self) -> Tensor:
        """(K, 4) float32 xyxy around each object; zeros where it is empty."""
        boxes = np.zeros((len(self), 4), np.float32)
        which, first = np.unique(self.rings.mask, return_index=True)
        if len(which):
            begin = self.rings.starts[first]
            low, high = (edge.reduceat(self.rings.points, begin) for edge in (np.minimum, np.maximum))
            boxes[which] = np.concatenate([low, high], 1)
        return torch.from_numpy(boxes)

    def with_moved(self, k: int, moved: dict[int, Ring], height: int, width: int) -> Rings:
        """Object ``k`` after some of its rings have moved.

        Where one has grown into another, their union along the pixels' edges takes the place of all rings whose boxes
        touch that of one that moved; the others stay.

        Args:
            k: its place among all.
            moved: the new rings by their place among those of the object.
            height, width: of the image, pixels.
        """
        given = self.objects[k]
        rings = [moved.get(place, ring) for place, ring in enumerate(given)]
        near: np.ndarray = np.any(boxes_touch(rings, list(moved.values())), axis=1)
        hole = self.rings.hole[slice(*np.searchsorted(self.rings.mask, [k, k + 1]))][near]
        union = union_of_parts(_chosen(rings, near), hole, height, width)
        if union is None or union_of_parts(_chosen(given, near), hole, height, width) is not None:  # they were given so
            return rings
        return trace_runs(decode_counts(union["counts"]), height).split() + _chosen(rings, ~near)


def boxes_touch(rings: Rings, others: Rings) -> np.ndarray:
    """Whether the boxes of R rings touch those of S others, (R, S) bool; coordinates are pixels.

    A pixel apart is touching: beyond it the rasteriser's rounding cannot make them meet.
    """
    (low, high), (other_low, other_high) = ring_boxes(rings), ring_boxes(others)
    touching: np.ndarray = np.all((low[:, None] <= other_high + 1) & (high[:, None] + 1 >= other_low), axis=2)
    return touching


def _chosen(rings: Rings, which: np.ndarray) -> Rings:
    return [ring for ring, taken in zip(rings, which.tolist(), strict=True) if taken]


def given_traced(parts: Sequence[TracedRings]) -> GivenObjects:
    """The rings of one mask each, in pixels of one image, as objects to refine."""
    return GivenObjects([part.split() for part in parts], join_rings(parts))


def join_rings(parts: Sequence[TracedRings]) -> TracedRings:
    """The rings of K masks in one piece, from K pieces that hold those of one mask each."""
    lengths = [np.diff(part.starts) for part in parts]
    return TracedRings(
        np.concatenate([np.zeros((0, 2)), *(part.points for part in parts)]),
        np.cumsum(np.concatenate([[0], *lengths]).astype(np.int64)),
        np.repeat(np.arange(len(parts)), [len(length) for length in lengths]),
        np.concatenate([np.zeros(0, bool), *(part.hole for part in parts)]),
    )


def trace_runs(runs: np.ndarray, height: int) -> TracedRings:
    """The rings, along pixel edges, of a mask in run lengths that go down its columns of ``height`` pixels.

    Only the columns with an inside run are ever decoded.
    """
    ends = np.cumsum(runs)
    inside = np.flatnonzero(runs[1::2]) * 2 + 1
    if len(inside) == 0:
        return trace_window(np.zeros((0, 0), bool))
    first = (ends[inside[0]] - runs[inside[0]]) // height
    rings = trace_window(decode_columns(runs, height, first, -(-ends[inside[-1]] // height)))
    rings.points[:, 0] += first
    return rings
