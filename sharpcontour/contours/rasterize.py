"""Rings -> COCO run-length encoding, exactly and without a full-size image.

A pixel belongs to an object when its centre lies inside an odd number of the object's rings. Run lengths say where,
in column-major order, a mask changes between 0 and 1; the even-odd union of several rings is therefore the set of
changes that occur an odd number of times, and holes need no images to be subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sharpcontour.contours.types import Ring, Rings
from sharpcontour.masks.run_lengths import RLE, changes_to_rle, decode_counts, rles_to_masks
from sharpcontour.masks.segmentation import reach_of

# COCO's polygon routine: any other rasteriser (cv2.fillPoly paints the outline too) costs several points of IoU.


def rings_to_rles(objects: Sequence[Rings], height: int, width: int) -> list[RLE]:
    """Rasterise K objects.

    Args:
        objects: K lists of rings, (n, 2) x, y in continuous pixels of the (height, width) image. Rings may leave it.

    Returns:
        K compressed COCO RLEs {"size": [height, width], "counts": str}; rings with fewer than three
        vertices or one that is not finite are left out, and no usable ring gives an empty mask.
    """
    return [_object_rle([ring for ring in rings if _usable(ring)], height, width) for rings in objects]


def rings_to_masks(objects: Sequence[Rings], height: int, width: int) -> np.ndarray:
    """Rasterise K objects, each a list of rings (n, 2) x, y in pixels of the image, to (K, height, width) bool."""
    return rles_to_masks(rings_to_rles(objects, height, width), height, width)


def union_of_parts(rings: Rings, hole: np.ndarray, height: int, width: int) -> RLE | None:
    """The pixels of an object whose rings have grown into one another, which the even-odd rule would take out.

    A pixel belongs to the union when more of the object's outlines than of its holes surround it.

    Args:
        rings: (n, 2) x, y in continuous pixels of the (height, width) image.
        hole: whether each of them bounds a hole, bool.

    Returns:
        The compressed COCO RLE of the union; None where the even-odd rule gives the same pixels.
    """
    usable = [place for place, ring in enumerate(rings) if _usable(ring)]
    if len(usable) < 2:
        return None
    changes = _changes([rings[place] for place in usable], height, width)
    steps = [
        np.resize([1, -1], len(own)) * (-1 if hole[place] else 1) for place, own in zip(usable, changes, strict=True)
    ]
    positions, where = np.unique(np.concatenate(changes), return_inverse=True)
    surrounded = np.cumsum(np.bincount(where, np.concatenate(steps)))  # outlines less holes, from each position on
    odd = np.cumsum(np.bincount(where)) % 2 == 1
    inside = surrounded > 0
    if np.array_equal(inside, odd):
        return None
    return changes_to_rle(positions[np.diff(inside, prepend=False)], height, width)


def _usable(ring: Ring) -> bool:
    return len(ring) >= 3 and bool(np.isfinite(ring).all())  # the routine may crash on NaN


def _object_rle(rings: Rings, height: int, width: int) -> RLE:
    if not rings:
        return changes_to_rle(np.zeros(0, np.int64), height, width)
    if len(rings) == 1:
        return {"size": [height, width], "counts": _encode(rings, height, width)[0]["counts"].decode("ascii")}
    positions, occurrences = np.unique(np.concatenate(_changes(rings, height, width)), return_counts=True)
    return changes_to_rle(positions[occurrences % 2 == 1], height, width)


def _changes(rings: Rings, height: int, width: int) -> list[np.ndarray]:
    """Where each ring's mask, read column by column, changes: ascending int64."""
    return [np.cumsum(decode_counts(rle["counts"])[:-1]) for rle in _encode(rings, height, width)]


def _encode(rings: Rings, height: int, width: int) -> Any:
    """Each ring's mask as pycocotools has it, its counts as bytes."""
    return coco_mask.frPyObjects([_flat(ring, height, width) for ring in rings], height, width)


def _flat(ring: Ring, height: int, width: int) -> np.ndarray:
    """The coordinates as one float64 vector, kept within the reach of polygons that are read."""
    reach = reach_of(height, width)
    return np.clip(ring, -reach, reach).astype(np.float64).ravel()
