"""COCO segmentations as files have them, and the one set of checks on them.

There are three forms: a list of polygons [x0, y0, x1, y1, ...] in continuous pixels, whose union is meant and which
have no holes; run lengths {"size": [height, width], "counts": [...]}; and the same compressed, the counts as text or
bytes. Polygons are understood too where a tool wrote points [x, y], or a single polygon without the list around it.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sharpcontour.masks.run_lengths import RLE, counts_of, decode_counts, run_lengths

UNUSUAL = "polygon written as points [x, y], or without the list around it, understood"
"""Kind of problem that :func:`flat_polygons` mends."""

REACH = 10  # image sizes, how far away a vertex of a polygon may lie
CHUNK = 512  # RLEs decoded in one pass: enough to spread the overhead, few enough to stay in the cache
_COUNTS = re.compile(rb"(?:[P-o]{0,6}[0-O])+")  # numbers of at most seven characters, the last without bit 5
_MEND = "encode the mask with pycocotools"
_LISTS = (list, tuple, np.ndarray)


def flat_polygons(segmentation: Sequence[Any]) -> Sequence[Any]:
    """Polygons as COCO writes them, a list of flat lists x0, y0, x1, y1, ...

    Args:
        segmentation: a list of polygons, each a flat list or a list of points [x, y]; or one polygon, flat or of
            points.

    Returns:
        ``segmentation`` itself where it is in COCO's form already. What is broken stays broken, see
        :func:`polygon_fault`.
    """
    if all(map(_is_flat, segmentation)):
        return segmentation  # nearly always
    if len(segmentation) and isinstance(segmentation[0], (int, float, np.number)):
        return [segmentation]
    if _is_points(segmentation):
        return [_flat(segmentation)]
    if any(map(_is_points, segmentation)):
        return [_flat(polygon) if _is_points(polygon) else polygon for polygon in segmentation]
    return segmentation


def tell_unusual(entries: Iterable[Mapping[str, Any]], name: str) -> None:
    """Warn, in a line, of annotations or results whose polygons are in COCO's form only after :func:`flat_polygons`.

    Args:
        entries: with a "segmentation" each, or without.
        name: of their file.
    """
    segmentations = [entry["segmentation"] for entry in entries if isinstance(entry.get("segmentation"), list)]
    count = sum(flat_polygons(one) is not one for one in segmentations)
    if count:
        warnings.warn(f"{name}: {count} x {UNUSUAL}", stacklevel=1)  # so that it is told once, whoever asks


def _is_flat(polygon: object) -> bool:
    """Whether a polygon is a flat list that cannot be taken for a point [x, y]."""
    return isinstance(polygon, list) and len(polygon) > 2 and isinstance(polygon[0], (int, float))


def _is_points(polygon: object) -> bool:
    """Whether a polygon is a list of points [x, y]; of a flat list of numbers the first one tells."""
    return isinstance(polygon, _LISTS) and len(polygon) > 0 and all(map(_is_point, polygon))


def _is_point(value: object) -> bool:
    return isinstance(value, _LISTS) and len(value) == 2 and not any(isinstance(part, _LISTS) for part in value)


def _flat(points: Iterable[Iterable[float]]) -> list[float]:
    return [value for point in points for value in point]


def reach_of(height: int, width: int) -> float:
    """How far from 0 the coordinates of a polygon on an image of this size may lie, all in pixels.

    COCO's routine walks along every edge in steps of a fifth of a pixel: a stray vertex far away would cost millions.
    """
    return float(REACH * max(height, width))


def polygon_fault(values: object, reach: float = math.inf) -> str:
    """What is wrong with one polygon in words, "" if nothing is; no coordinate may be more than ``reach`` from 0."""
    if not isinstance(values, _LISTS) or (len(values) and isinstance(values[0], _LISTS)):
        return "a polygon must be a flat list x0, y0, x1, y1, ... of three or more points"
    if len(values) < 6 or len(values) % 2:
        return "a polygon must be a flat list x0, y0, x1, y1, ... of three or more points"
    try:
        finite = math.isfinite(sum(values))  # a sum finds NaN and infinity, and what is no number
        far = finite and reach < math.inf and not (-reach <= min(values) and max(values) <= reach)
    except (TypeError, OverflowError):
        finite, far = False, False
    if not finite:
        return "a polygon has a coordinate that is not finite, or no number"
    return f"a polygon has a vertex more than {REACH} image sizes away; give pixels of this image" if far else ""


def size_fault(size: object, height: int, width: int) -> str:
    """What is wrong with the size of a mask in words, "" if it is the image's."""
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        return "an RLE needs 'size': [height, width]"
    if list(size) == [height, width]:
        return ""
    said = f"the mask is {size[1]} x {size[0]} pixels, the image {width} x {height}"
    sides = all(isinstance(side, int) and side > 1 for side in size)
    if sides and abs(size[0] * width - size[1] * height) <= max(height, width) and abs(size[0] - height) > height / 10:
        return f"{said}; scale it to that (pixels: cv2.INTER_NEAREST), or give masks of this image"
    return f"{said}; give masks of this image"


def read_runs(rle: Mapping[str, object], height: int, width: int) -> np.ndarray:
    """Run lengths (int64) in either form, alternating 0 and 1 and beginning with 0.

    Raises:
        ValueError: with the reason, where they are broken or of another size than the image.
    """
    if fault := size_fault(rle.get("size"), height, width):
        raise ValueError(fault)
    counts = rle.get("counts")
    try:
        runs = decode_counts(counts) if isinstance(counts, (str, bytes)) else np.array(counts)
    except (ValueError, OverflowError):
        raise ValueError(f"counts cannot be read; {_MEND}") from None
    pixels = height * width
    # Each is compared too: sums of 64 bits begin anew behind the largest number.
    fit = runs.ndim == 1 and np.issubdtype(runs.dtype, np.integer) and ((runs >= 0) & (runs <= pixels)).all()
    if not fit or runs.sum() != pixels:
        raise ValueError(f"counts do not add up to {width} x {height} pixels; {_MEND}")
    return runs.astype(np.int64)


def usable_part(segmentation: object, height: int, width: int) -> tuple[Any, list[str]]:
    """A segmentation in COCO's form without its broken polygons, and what was wrong with it.

    Returns:
        Polygons, or run lengths {"size", "counts"}, or None if nothing usable is left; and the kinds of problem, the
        one that left nothing last.
    """
    if isinstance(segmentation, list):
        return _usable_polygons(segmentation, reach_of(height, width))
    if not isinstance(segmentation, dict):
        return None, ["segmentation missing"]
    if size_fault(segmentation.get("size"), height, width):
        return None, ["run lengths of another size than the image's"]
    try:
        runs = read_runs(segmentation, height, width)
    except ValueError:
        return None, ["run lengths that cannot be read, or do not add up to the image's pixels"]
    return (segmentation, []) if runs[1::2].any() else (None, ["empty run lengths"])


def _usable_polygons(segmentation: list[Any], reach: float) -> tuple[Any, list[str]]:
    problems = []
    flat = flat_polygons(segmentation)
    polygons = [polygon for polygon in flat if not polygon_fault(polygon, reach)]
    if not polygons:
        return None, [f"no polygon of three or more finite points within {REACH} image sizes"]
    if flat is not segmentation:
        problems.append(UNUSUAL)
    if len(polygons) < len(flat):
        problems.append(
            "polygon of fewer than three points, with values missing or not finite, "
            f"or more than {REACH} image sizes away, left out"
        )
    return polygons, problems


def to_rle(segmentation: object, height: int, width: int) -> RLE:
    """A compressed RLE of any of COCO's three forms.

    Args:
        segmentation: list of polygons as :func:`flat_polygons` understands it, or {"size", "counts"} with the run
            lengths as a list or compressed.
        height, width: of the image, pixels.

    Raises:
        ValueError: with the reason, where the segmentation is broken. What a compressed string holds is not looked at;
            :func:`find_broken` does that for many at once.
    """
    if isinstance(segmentation, list):
        if not segmentation:
            raise ValueError("segmentation is empty")
        segmentation = flat_polygons(segmentation)
        faults = (polygon_fault(polygon, reach_of(height, width)) for polygon in segmentation)
        if fault := next(filter(None, faults), ""):
            raise ValueError(fault)
        return rle_of_polygons(segmentation, height, width)
    if not isinstance(segmentation, Mapping) or "counts" not in segmentation:
        raise ValueError("segmentation is neither a list of polygons nor an RLE")
    if fault := size_fault(segmentation.get("size"), height, width):
        raise ValueError(fault)
    counts = segmentation["counts"]
    if isinstance(counts, list):
        runs = read_runs(segmentation, height, width)
        return coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    if isinstance(counts, str):
        counts = counts.encode("utf-8")
    if not isinstance(counts, bytes):
        raise ValueError("counts is neither a list nor a string")
    return {"size": [height, width], "counts": counts}


def rle_of_polygons(polygons: Sequence[Any], height: int, width: int) -> RLE:
    """The union of checked polygons as a compressed RLE."""
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))


def find_broken(rles: Sequence[RLE]) -> list[int]:
    """Indices of compressed RLEs that are not well formed or do not fill their image exactly."""
    return measure(rles)[1]


def measure(rles: Sequence[RLE]) -> tuple[np.ndarray, list[int]]:
    """Pixels of each mask (n,) int64, and the indices of broken ones as of :func:`find_broken`; those have 0."""
    areas, broken = np.zeros(len(rles), np.int64), []
    for begin in range(0, len(rles), CHUNK):
        chunk = range(begin, min(begin + CHUNK, len(rles)))
        formed = _well_formed([counts_of(rles[i]) for i in chunk])
        broken += [i for i, right in zip(chunk, formed, strict=True) if not right]
        index = [i for i, right in zip(chunk, formed, strict=True) if right]
        if not index:
            continue
        runs, offsets = run_lengths([counts_of(rles[i]) for i in index])
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
