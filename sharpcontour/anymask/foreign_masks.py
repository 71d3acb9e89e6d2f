"""Reading masks from anywhere: pixel arrays, COCO run lengths or COCO polygons, of one image.

They become rings with exactly their pixels; one mask is looked at at a time, in the columns that it fills.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharpcontour.contours.keyholes import has_bridges
from sharpcontour.contours.nesting import holes, ring_boxes
from sharpcontour.contours.rasterize import union_of_parts
from sharpcontour.contours.tracing import TracedRings, trace_window
from sharpcontour.contours.types import Ring, Rings
from sharpcontour.errors import InputError
from sharpcontour.host import at_least_one_pixel
from sharpcontour.masks.run_lengths import decode_columns, decode_counts
from sharpcontour.masks.segmentation import (
    flat_polygons,
    polygon_fault,
    reach_of,
    read_runs,
    rle_of_polygons,
    size_fault,
)

_OF_OPENCV = (
    "contours of OpenCV, which go through the middles of pixels; give the mask that they were found in, or for each "
    "object a list [contour.reshape(-1, 2) + 0.5 for contour in contours]"
)


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
        near: np.ndarray = np.any(_touching(rings, list(moved.values())), axis=1)
        hole = self.rings.hole[slice(*np.searchsorted(self.rings.mask, [k, k + 1]))][near]
        union = union_of_parts(_chosen(rings, near), hole, height, width)
        if union is None or union_of_parts(_chosen(given, near), hole, height, width) is not None:  # they were given so
            return rings
        return _trace_runs(decode_counts(union["counts"]), height).split() + _chosen(rings, ~near)


def _touching(rings: Rings, others: Rings) -> np.ndarray:
    """Whether the boxes of R rings touch those of S others, (R, S) bool.

    A pixel apart is touching: beyond it the rasteriser's rounding cannot make them meet.
    """
    (low, high), (other_low, other_high) = ring_boxes(rings), ring_boxes(others)
    touching: np.ndarray = np.all((low[:, None] <= other_high + 1) & (high[:, None] + 1 >= other_low), axis=2)
    return touching


def _chosen(rings: Rings, which: np.ndarray) -> Rings:
    return [ring for ring, taken in zip(rings, which.tolist(), strict=True) if taken]


def read_masks(masks: Any, height: int, width: int) -> GivenObjects:
    """Rings of masks on an image.

    Args:
        masks: (K, height, width) bool or integer array or tensor, not zero inside; or K of these in any mixture:
            a (height, width) array, a COCO RLE (compressed or not), a list of COCO polygons [x0, y0, x1, y1, ...] in
            continuous pixels, whose union is meant and which is cut off at the image's border (a polygon may also be
            a list of points [x, y], and a single one may stand alone), a list of rings (n, 2) as in
            ``Detections.rings``, or a dict that has one of these as its "segmentation", as COCO's annotations and
            Segment Anything's masks are. Any may be empty.
        height, width: of the image, pixels.

    Raises:
        InputError: naming the mask, where one is broken or of another size than the image.
    """
    if isinstance(masks, dict) or not hasattr(masks, "__len__"):
        raise InputError(
            f"masks must be an array (K, height, width) or a list with an entry a mask, not {_kind(masks)}"
        )
    if isinstance(masks, (np.ndarray, Tensor)):
        shape = tuple(masks.shape)
        if len(shape) != 3:
            raise InputError(f"masks must have the shape (K, {height}, {width}); this one has {shape}")
        if shape[:2] == (height, width) != shape[1:]:
            raise InputError(f"masks have the shape {shape}; give (K, {height}, {width}), a mask a layer")
    objects: list[Rings] = []
    parts: list[TracedRings] = []
    for k, mask in enumerate(masks):
        try:
            found, part = _read(mask, height, width)
        except (TypeError, ValueError) as error:
            raise InputError(f"masks[{k}]: {error}") from None
        objects.append(found)
        parts.append(part)
    return GivenObjects(objects, _join(parts))


def given_traced(parts: Sequence[TracedRings]) -> GivenObjects:
    """The rings of one mask each, in pixels of one image, as objects to refine."""
    return GivenObjects([part.split() for part in parts], _join(parts))


def _read(mask: Any, height: int, width: int) -> tuple[list[Ring], TracedRings]:
    """One mask; ValueError or TypeError where it is broken."""
    if isinstance(mask, dict) and "segmentation" in mask and "counts" not in mask:
        mask = mask["segmentation"]
    if isinstance(mask, (list, tuple)):
        if len(mask) == height and all(_is_row(row, width) for row in mask):
            raise ValueError("nested lists; give a mask as a numpy array of bool")
        if any(isinstance(ring, np.ndarray) and ring.shape[1:] == (1, 2) for ring in mask):
            raise ValueError(_OF_OPENCV)
        if len(mask) and all(isinstance(ring, np.ndarray) and ring.ndim == 2 for ring in mask):
            return _rings(mask)
        mask = flat_polygons(mask)
        if (polygons := _polygons(mask, height, width)) is not None:
            return polygons, _as_given(polygons)
    part = _traced(mask, height, width)
    return part.split(), part


def valid_boxes(boxes: Any, default: Tensor, height: int, width: int) -> Tensor:
    """(K, 4) float32 xyxy: ``boxes`` cut off at the image and a pixel large at least, ``default`` where they are None.

    Raises:
        InputError: where they are not K times four finite numbers.
    """
    if boxes is None:
        return default
    try:
        rows = _as_array(boxes)
        count = len(rows)
    except (TypeError, RuntimeError):
        raise InputError(f"boxes must be x0, y0, x1, y1 for each mask, or None; not {boxes!r:.80}") from None
    if count != len(default):
        raise InputError(f"there are {count} boxes for {len(default)} masks; give each its own, or None")
    found = default.clone()
    for k, row in enumerate(rows):
        if row is None:
            continue
        try:
            box = np.asarray(_as_array(row))
        except (ValueError, TypeError, RuntimeError):  # rows of several lengths, and of what is no number
            box = np.zeros(0)
        if box.shape != (4,) or box.dtype.kind not in "iuf" or not np.isfinite(box).all():
            raise InputError(f"boxes[{k}] is not x0, y0, x1, y1, four finite numbers: {row}")
        if not (box[:2] <= box[2:]).all():
            raise InputError(
                f"boxes[{k}] ends before it begins: {row}; give x0, y0, x1, y1 in pixels, not x, y, width, height"
            )
        found[k] = torch.from_numpy(box.astype(np.float32))
        low, high = torch.maximum(found[k, :2], default[k, :2]), torch.minimum(found[k, 2:], default[k, 2:])
        if (default[k] > 0).any() and not (low < high).all():
            warnings.warn(f"boxes[{k}] lies apart from its mask: {row}; give x0, y0, x1, y1 in pixels", stacklevel=3)
    given = torch.tensor([row is not None for row in rows], dtype=torch.bool)
    limits = torch.tensor([[width, height, width, height]], dtype=torch.float32)
    return torch.where(given[:, None], at_least_one_pixel(found, limits), found)


def _as_array(values: Any) -> Any:
    """A tensor as an array, which knows neither bfloat16 nor gradients; anything else as it is."""
    if not isinstance(values, Tensor):
        return values
    own = values.detach().cpu()
    return (own.double() if own.is_floating_point() else own).numpy()


def _is_row(row: Any, width: int) -> bool:
    """Whether this is a row of a mask that somebody wrote as nested lists: all 0 and 1."""
    return isinstance(row, list) and len(row) == width and all(value in (0, 1) for value in row)


def _kind(value: Any) -> str:
    return "a single RLE" if isinstance(value, dict) else type(value).__name__


def _traced(mask: Any, height: int, width: int) -> TracedRings:
    """Rings along the pixels' edges; ValueError with the reason where the mask is broken."""
    if isinstance(mask, dict):
        return _trace_runs(read_runs(mask, height, width), height)
    if isinstance(mask, (list, tuple)):
        return _trace_runs(read_runs(rle_of_polygons(list(mask), height, width), height, width), height)
    if isinstance(mask, Tensor):
        if mask.is_floating_point():  # bfloat16 numpy does not have
            raise ValueError(f"a mask of {mask.dtype}; give bool, for instance mask > 0.5")
        mask = mask.detach().cpu().numpy()
    if isinstance(mask, np.ndarray) and mask.shape[1:] == (1, 2):
        raise ValueError(_OF_OPENCV)
    if not isinstance(mask, np.ndarray) or mask.ndim != 2:
        what = f"an array of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValueError(f"{what} is neither a mask (height, width), nor an RLE, nor a list of polygons")
    if mask.shape[1] == 2 != width:
        raise ValueError(f"{len(mask)} points and no mask; each object is a list of its outlines, so give [points]")
    if mask.dtype != bool and not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(f"a mask of {mask.dtype}; give bool, for instance mask > 0.5")
    if fault := size_fault(mask.shape, height, width):
        raise ValueError(fault)
    return trace_window(mask.astype(bool, copy=False))


def _trace_runs(runs: np.ndarray, height: int) -> TracedRings:
    """Rings of run lengths that go down the columns; only the columns with an inside run are ever made."""
    ends = np.cumsum(runs)
    inside = np.flatnonzero(runs[1::2]) * 2 + 1
    if len(inside) == 0:
        return trace_window(np.zeros((0, 0), bool))
    first = (ends[inside[0]] - runs[inside[0]]) // height
    rings = trace_window(decode_columns(runs, height, first, -(-ends[inside[-1]] // height)))
    rings.points[:, 0] += first
    return rings


def _polygons(polygons: Sequence[Any], height: int, width: int) -> list[Ring] | None:
    """Checked polygons as they are, where they are plain rings whose even-odd rule means their union; else None."""
    rings = []
    for polygon in polygons:
        if fault := polygon_fault(polygon, reach_of(height, width)):
            raise ValueError(fault)
        rings.append(np.array(polygon, np.float64).reshape(-1, 2))
    if not rings:
        return rings
    if any(map(has_bridges, rings)):
        return None  # along a bridge normals are opposite: what moves there would open a slot
    low, high = ring_boxes(rings)
    apart = np.array_equal(_touching(rings, rings), np.eye(len(rings), dtype=bool))  # each touches itself alone
    inside = low.min() >= 0 and (high <= (width, height)).all()
    return rings if inside and apart else None


def _rings(rings: Sequence[np.ndarray]) -> tuple[list[Ring], TracedRings]:
    """Outer rings and holes as this project writes them; ValueError where one is broken."""
    for ring in rings:
        if ring.shape[1] != 2 or len(ring) < 3 or ring.dtype.kind not in "iuf" or not np.isfinite(ring).all():
            raise ValueError("a ring must be three or more points (n, 2) x, y, all finite")
    found = [ring.astype(np.float64) for ring in rings]
    return found, replace(_as_given(found), hole=holes(found))


def _as_given(rings: list[Ring]) -> TracedRings:
    count = len(rings)
    points = np.concatenate([np.zeros((0, 2)), *rings])
    starts = np.cumsum([0, *map(len, rings)])
    return TracedRings(points, starts, np.zeros(count, np.int64), np.zeros(count, bool))


def _join(parts: Sequence[TracedRings]) -> TracedRings:
    """The rings of one mask each -> of all masks."""
    lengths = [np.diff(part.starts) for part in parts]
    return TracedRings(
        np.concatenate([np.zeros((0, 2)), *(part.points for part in parts)]),
        np.cumsum(np.concatenate([[0], *lengths]).astype(np.int64)),
        np.repeat(np.arange(len(parts)), [len(length) for length in lengths]),
        np.concatenate([np.zeros(0, bool), *(part.hole for part in parts)]),
    )
