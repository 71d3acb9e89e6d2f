"""Masks as files hold them, with their names: what the readers of all kinds of files hand over."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
from pycocotools import mask as coco_mask

from sharpcontour.contours.keyholes import opened
from sharpcontour.contours.rasterize import rings_to_rles
from sharpcontour.contours.types import Rings
from sharpcontour.errors import InputError
from sharpcontour.io.images import WrongSizeError
from sharpcontour.masks.run_lengths import RLE, changes_to_rle, counts_of
from sharpcontour.masks.segmentation import (
    flat_polygons,
    polygon_fault,
    read_runs,
    rle_of_polygons,
    size_fault,
    to_rle,
)

Size = tuple[int, int]
"""(height, width) in pixels."""

BEYOND = 0.1  # of the photograph's size: a polygon that leaves it by more was drawn on another one


class NoMaskError(InputError):
    """Files hold no mask of a photograph; they may well have some of others."""


@dataclass
class NamedMask:
    """One object of a photograph.

    Attributes:
        name: what to call it: its label, or its file and number.
        mask: a COCO RLE, compressed or not; a list of flat COCO polygons in continuous pixels, whose union is meant; or
            a list of rings (n, 2), arrays, by the even-odd rule, where the file tells of holes. Any may be empty.
        category: name of its class, if the file tells one.
        category_id: number of its class, if the file tells one.
        score: how sure a detector was of it, if the file tells that.
        crowd: whether it is many objects in one ("iscrowd" of COCO), which have no outline to refine.
        fields: what else its file tells of it, by the names that it has there.
        kind: of that file, one of those of ``other_fields.py``.
    """

    name: str
    mask: Any
    category: str | None = None
    category_id: int | None = None
    score: float | None = None
    crowd: bool = False
    fields: dict[str, Any] = field(default_factory=dict)
    kind: str = ""


@dataclass
class Reading:
    """What a file holds.

    Attributes:
        masks: in the order of the file.
        how: in what way it was understood, in a few words.
    """

    masks: list[NamedMask]
    how: str


def checked(segmentation: Any, size: Size, where: str) -> Any:
    """A COCO segmentation as the ``mask`` of a :class:`NamedMask`.

    Args:
        segmentation: run lengths, compressed or not, or polygons; empty ones are taken. Polygons with an edge that is
            walked there and back hold holes or several parts, and become rings (``contours/keyholes.py``).
        size: of the photograph.
        where: file and entry, for error messages.

    Raises:
        WrongSizeError: where it is of a photograph of another size.
        InputError: where it is broken or missing.
    """
    if isinstance(segmentation, dict):
        own = segmentation.get("size")
        if fault := size_fault(own, *size):
            two = isinstance(own, (list, tuple)) and len(own) == 2 and all(isinstance(side, int) for side in own)
            raise (WrongSizeError if two else InputError)(f"{where}: {fault}")
        try:
            read_runs(segmentation, *size)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: {error}") from None
        return segmentation
    if not isinstance(segmentation, list):
        raise InputError(f"{where}: has no 'segmentation' of run lengths or polygons; give it one, or take it out")
    polygons = list(flat_polygons(segmentation))
    for polygon in polygons:
        if fault := polygon_fault(polygon):
            raise InputError(f"{where}: {fault}; mend it, or take it out")
    check_reach(polygons, size, where)
    points = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
    rings = [opened(polygon) for polygon in points]
    if all(len(part) == 1 and len(part[0]) == len(whole) for part, whole in zip(rings, points, strict=True)):
        return polygons
    return rings_or_pixels([ring for part in rings for ring in part], rle_of_polygons(polygons, *size))


def rings_or_pixels(rings: Rings, rle: RLE) -> Any:
    """Rings where they lie on the photograph and have exactly the pixels of the RLE by the even-odd rule; else that."""
    height, width = rle["size"]
    inside = all(ring.min() >= 0 and (ring.max(0) <= (width, height)).all() for ring in rings)
    return rings if inside and counts_of(rings_to_rles([rings], height, width)[0]) == counts_of(rle) else rle


def joined_parts(shapes: Iterable[tuple[Any, NamedMask]], size: Size) -> tuple[list[NamedMask], str]:
    """The shapes of a file, each with a key, as objects: those of one key are parts of one, whose mask is their union.

    Returns:
        The objects in the order of their first shapes; and the end of a line on the shapes whose ``fields`` differ from
        those of the first of their object, and are left out.
    """
    objects: dict[Any, NamedMask] = {}
    unlike = 0
    for key, part in shapes:
        first = objects.setdefault(key, part)
        if first is not part:
            first.mask = united([first.mask, part.mask], size)
            unlike += first.fields != part.fields
    told = f"; {unlike} with other fields than the first part of their object, left out" if unlike else ""
    return list(objects.values()), told


def check_crop(x: int, y: int, width: int, height: int, size: Size, where: str) -> None:
    """InputError where a crop of at least one pixel, from column x and row y on, leaves the photograph.

    ``where`` names the file, the entry, and what of it the crop is.
    """
    if not (0 <= x < x + width <= size[1] and 0 <= y < y + height <= size[0]):
        raise InputError(
            f"{where} of {width} x {height} pixels at {x}, {y} leaves the image, which is {size[1]} x {size[0]} "
            "pixels; give masks of this image"
        )


def united(masks: Sequence[Any], size: Size) -> Any:
    """The union of masks as :class:`NamedMask` has them, which are parts of one object."""
    if not any(isinstance(mask, dict) or any(isinstance(part, np.ndarray) for part in mask) for mask in masks):
        return [polygon for mask in masks for polygon in mask]
    union = coco_mask.merge([mask_rle(mask, size) for mask in masks])
    if any(isinstance(mask, dict) for mask in masks):
        return union
    return rings_or_pixels([np.asarray(ring, np.float64).reshape(-1, 2) for mask in masks for ring in mask], union)


def mask_rle(mask: Any, size: Size) -> RLE:
    """A mask as :class:`NamedMask` has it as a compressed RLE."""
    if isinstance(mask, list) and (not mask or isinstance(mask[0], np.ndarray)):
        return rings_to_rles([mask], *size)[0]
    return to_rle(mask, *size)


def check_reach(polygons: Sequence[Any], size: Size, where: str) -> None:
    """WrongSizeError where polygons were drawn on a larger picture: they have no size that could tell."""
    height, width = size
    for polygon in polygons:
        points = np.asarray(polygon, np.float64).reshape(-1, 2)
        low, high = points.min(0), points.max(0)
        x, y = BEYOND * width, BEYOND * height
        if (low < (-x, -y)).any() or (high > (width + x, height + y)).any():
            raise WrongSizeError(
                f"{where}: its outline reaches from {low[0]:.6g}, {low[1]:.6g} to {high[0]:.6g}, {high[1]:.6g}, the "
                f"image is {width} x {height} pixels; give masks of this image, in its pixels"
            )


def is_score(value: object) -> TypeGuard[float]:
    """Whether a value of a file is a number that a float holds."""
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max


def check_size(found: Any, size: Size, where: str) -> None:
    """WrongSizeError where ``found``, the (height, width) that a file tells, is not ``size``; None tells nothing.

    Numbers may be written as text or with a decimal point.
    """
    try:
        sides = [int(float(side)) for side in found]
    except (TypeError, ValueError, OverflowError):
        return
    if fault := size_fault(sides, *size):
        raise WrongSizeError(f"{where}: {fault}")


def label_rles(ids: np.ndarray) -> dict[int, Any]:
    """The objects of a label map (H, W) of integers, 0 outside, by their ids: compressed COCO RLEs, ascending."""
    flat = ids.T.ravel()  # run lengths go down the columns
    begins = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    runs, values = np.stack([begins, np.append(begins[1:], len(flat))], 1), flat[begins]
    order = np.argsort(values, kind="stable")
    order = order[np.searchsorted(values[order], 0, side="right") :]
    numbers, first = np.unique(values[order], return_index=True)
    parts = np.split(runs[order], first[1:])
    return {int(number): changes_to_rle(part.ravel(), *ids.shape) for number, part in zip(numbers, parts, strict=False)}
