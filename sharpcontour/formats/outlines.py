"""Outlines as files hold them, each with exactly the pixels of its object, and what a format cannot hold.

An object is a list of rings, outlines and holes by the even-odd rule. SVG holds it as it is. Formats that know no holes
hold polygons: one a part with its holes cut open, or one of the whole object, see ``contours/keyholes.py``. Coordinates
are rounded where this changes no pixel. Where an outline leaves the photograph, crosses itself, or cannot be held for
another reason, the outline of its pixels takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sharpcontour.contours.keyholes import joined
from sharpcontour.contours.nesting import parts_of
from sharpcontour.contours.rasterize import rings_to_rles
from sharpcontour.contours.tracing import trace_mask
from sharpcontour.contours.types import Ring, Rings
from sharpcontour.formats.named_masks import NamedMask, Size
from sharpcontour.masks.run_lengths import RLE, counts_of
from sharpcontour.masks.segmentation import rle_of_polygons

DECIMALS = 3  # of coordinates in files
OBJECT = "object"
"""The class of an object that has none, in files that want one."""


def rings_in_file(rings: Rings, rle: RLE) -> Rings:
    """An object's rings in pixels, as a file holds them, which have its pixels by the even-odd rule.

    Args:
        rings: of the object, (n, 2) x, y in pixels.
        rle: its pixels.

    Returns:
        float64 rings (n, 2); none where the object is empty.
    """

    def same(found: Rings) -> bool:
        return counts_of(rings_to_rles([found], *rle["size"])[0]) == counts_of(rle)

    return _held(rings, rle, lambda found: found, same)


def parts_in_file(rings: Rings, rle: RLE) -> Rings:
    """An object as polygons without holes, one a part, whose union has its pixels; see :func:`rings_in_file`."""

    def build(found: Rings) -> Rings:
        return [joined(part) for part in parts_of(found)]

    return _held(rings, rle, build, lambda found: _same_union(found, rle))


def whole_in_file(rings: Rings, rle: RLE, full: float, decimals: int) -> Rings:
    """An object as one polygon that joins all of its rings, in parts of the photograph's size; none where it is empty.

    Args:
        rings: of the object, (n, 2) x, y in pixels.
        rle: its pixels.
        full: what the photograph's width and height are in the file.
        decimals: of the coordinates, where they suffice.

    Returns:
        float64 polygons (n, 2), x and y from 0 to ``full``, which :func:`in_pixels` gives the object's pixels.
    """
    height, width = rle["size"]

    def build(found: Rings) -> Rings:
        return [joined(found)]

    def same(polygons: Rings) -> bool:
        return _same_union([in_pixels(polygon, full, (height, width)) for polygon in polygons], rle)

    return _held(rings, rle, build, same, lambda ring: _in_units(ring, full, (height, width)), decimals)


def in_pixels(points: np.ndarray, full: float, size: Size) -> np.ndarray:
    """Points (n, 2) of a file in which the photograph's width and height are ``full``, in pixels.

    They are computed as other tools do it, in float64, so that a vertex in the middle of a pixel is there for these.
    """
    return points / full * size[::-1]


def _in_units(ring: Ring, full: float, size: Size) -> Ring:
    """The points of a file that :func:`in_pixels` gives a ring (n, 2) again, to the last bit where there are any."""
    found = ring / size[::-1] * full
    for near in (np.nextafter(found, np.inf), np.nextafter(found, -np.inf)):
        wrong, right = in_pixels(found, full, size) != ring, in_pixels(near, full, size) == ring
        found = np.where(wrong & right, near, found)
    return found


def _held(
    rings: Rings,
    rle: RLE,
    build: Callable[[Rings], Rings],
    same: Callable[[Rings], bool],
    to_file: Callable[[Ring], Ring] = lambda ring: ring,
    decimals: int = DECIMALS,
) -> Rings:
    """What ``build`` makes of the first rings of which that has the right pixels when it is read again."""
    if not coco_mask.area(rle):
        return []
    for candidate in _candidates(rings, rle):
        exact = [to_file(ring.astype(np.float64)) for ring in candidate]
        for found in ([ring.round(decimals) for ring in exact], exact):
            polygons = build(found)
            if same(polygons):
                return polygons
    raise AssertionError("the outline of pixels has these pixels")


def _candidates(rings: Rings, rle: RLE) -> Iterator[Rings]:
    height, width = rle["size"]
    usable = [ring for ring in rings if len(ring) >= 3 and np.isfinite(ring).all()]
    if all(ring.min() >= 0 and (ring.max(0) <= (width, height)).all() for ring in usable):
        yield usable
    yield trace_mask(coco_mask.decode(rle).astype(bool))


def _same_union(polygons: Rings, rle: RLE) -> bool:
    union = rle_of_polygons([polygon.ravel().tolist() for polygon in polygons], *rle["size"])
    return counts_of(union) == counts_of(rle)


def numbers(polygon: Ring) -> list[list[float]]:
    """A polygon as a list of [x, y] for JSON."""
    return [[x, y] for x, y in polygon.tolist()]


def class_of(mask: NamedMask) -> str:
    """The name of an object's class in files that want one."""
    return mask.category or OBJECT


def not_held(
    given: Sequence[NamedMask],
    rles: Sequence[RLE],
    *,
    empty: bool = True,
    scores: bool = True,
    crowds: bool = True,
) -> list[str]:
    """Lines on what a format has no place for, of what is asked for."""
    return [
        line
        for count, line in (
            (empty * sum(not coco_mask.area(rle) for rle in rles), "empty, left out, for it has nothing to hold them"),
            (scores * sum(mask.score is not None for mask in given), "with a score, which it cannot hold"),
            (crowds * sum(mask.crowd for mask in given), "with iscrowd 1, which it cannot hold"),
        )
        if count
        for line in [f"{counted(count, 'object')} {line}"]
    ]


def bridges(objects: Sequence[Rings], what: str) -> list[str]:
    """A line on the holes and parts of some objects, which ``what`` have no place for; none where there are none."""
    holes, parts = holes_and_parts(objects)
    told = [counted(count, name) for count, name in ((holes, "hole"), (parts, "part")) if count]
    return [f"{' and '.join(told)} joined by bridges, for its {what} have neither"] if told else []


def holes_and_parts(objects: Sequence[Rings]) -> tuple[int, int]:
    """How many holes some objects have, and how many parts besides their first one."""
    parts = [parts_of(rings) for rings in objects if rings]
    return sum(len(part) - 1 for one in parts for part in one), sum(len(one) - 1 for one in parts)


def counted(count: int, what: str) -> str:
    """A number and what is counted, in the singular or plural."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def plain(value: Any) -> str:
    """A number as short as it can be written; whole ones without a point."""
    return f"{value:.0f}" if value == round(value) else repr(float(value))
