"""Reading masks from anywhere: pixel arrays, COCO run lengths, COCO polygons or files of masks, of one image.

They become rings with exactly their pixels; one mask is looked at at a time, in the columns that it fills.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharpcontour.anymask.given_objects import GivenObjects, boxes_touch, join_rings, trace_runs
from sharpcontour.contours.keyholes import has_bridges
from sharpcontour.contours.nesting import holes, ring_boxes
from sharpcontour.contours.tracing import TracedRings, trace_window
from sharpcontour.contours.types import Ring, Rings
from sharpcontour.errors import InputError
from sharpcontour.formats.mask_files import read_mask_files
from sharpcontour.formats.mask_images import masks_of_values
from sharpcontour.host import at_least_one_pixel
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
_OF_PIL = "give np.asarray(mask) > 0, or the path of its file"


def read_masks(masks: Any, height: int, width: int, image: str = "") -> GivenObjects:
    """Rings of masks on an image.

    Args:
        masks: (K, height, width) bool or integer array or tensor, not zero inside; or K of these in any mixture:
            a (height, width) array, a COCO RLE (compressed or not), a list of COCO polygons [x0, y0, x1, y1, ...] in
            continuous pixels, whose union is meant and which is cut off at the image's border (a polygon may also be
            a list of points [x, y], and a single one may stand alone), a list of rings (n, 2) as in
            ``Detections.rings``, or a dict that has one of these as its "segmentation", as COCO's annotations and
            Segment Anything's masks are. Any may be empty. Or the path of a file of masks, or a list of such paths;
            or one array (height, width), which is understood as such a file's: a mask, a label map or a soft mask, see
            ``formats/mask_images.py``.
        height, width: of the image, pixels.
        image: name of its file, by which the files of data sets know it.

    Raises:
        InputError: naming the mask, where one is broken or of another size than the image.
    """
    if paths := _paths(masks):
        masks = _of_files(paths, (height, width), image)
    if isinstance(masks, dict) or not hasattr(masks, "__len__"):
        raise InputError(
            f"masks must be an array (K, height, width) or a list with an entry a mask, not {_kind(masks)}"
        )
    if isinstance(masks, (np.ndarray, Tensor)):
        shape = tuple(masks.shape)
        if shape == (height, width):
            values = np.asarray(_as_array(masks))
            masks = [one.mask for one in masks_of_values("", values, "masks").masks]
            shape = (len(masks), height, width)
        if len(shape) != 3:
            raise InputError(
                f"masks must have the shape (K, {height}, {width}) or ({height}, {width}); this one has {shape}"
            )
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
    return GivenObjects(objects, join_rings(parts))


def _paths(masks: Any) -> list[Path]:
    """The paths where files of masks are given by theirs, else none."""
    entries = [masks] if isinstance(masks, (str, os.PathLike)) else masks
    if not isinstance(entries, (list, tuple)) or not all(isinstance(one, (str, os.PathLike)) for one in entries):
        return []
    return [Path(os.fsdecode(one)) for one in entries]


def _of_files(paths: list[Path], size: tuple[int, int], image: str) -> list[Any]:
    named, _ = read_mask_files(paths, size, image)
    if crowds := [one.name for one in named if one.crowd]:
        raise InputError(
            f"{paths[0]}: {crowds[0]} has iscrowd 1, many objects in one, which have no outline to refine; give the "
            "masks of single objects, or run the command sharpcontour, which keeps those as they are"
        )
    return [one.mask for one in named]


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
    if isinstance(value, dict):
        return "a single RLE" if "counts" in value else "a dict"
    return f"a PIL image; {_OF_PIL}" if hasattr(value, "convert") else type(value).__name__


def _traced(mask: Any, height: int, width: int) -> TracedRings:
    """Rings along the pixels' edges; ValueError with the reason where the mask is broken."""
    if isinstance(mask, dict):
        return trace_runs(read_runs(mask, height, width), height)
    if isinstance(mask, (list, tuple)):
        return trace_runs(read_runs(rle_of_polygons(list(mask), height, width), height, width), height)
    if isinstance(mask, Tensor):
        if mask.is_floating_point():  # bfloat16 numpy does not have
            raise ValueError(f"a mask of {mask.dtype}; give bool, for instance mask > 0.5")
        mask = mask.detach().cpu().numpy()
    if isinstance(mask, np.ndarray) and mask.shape[1:] == (1, 2):
        raise ValueError(_OF_OPENCV)
    if hasattr(mask, "convert"):
        raise ValueError(_kind(mask))
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
    apart = np.array_equal(boxes_touch(rings, rings), np.eye(len(rings), dtype=bool))  # each touches itself alone
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
