"""What the command and the page do with a photograph and masks of it: read them, refine them, tell what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

from sharpcontour.detections import Detections
from sharpcontour.formats.mask_files import read_mask_files
from sharpcontour.formats.named_masks import NamedMask
from sharpcontour.io.images import read_fitting
from sharpcontour.masks.run_lengths import RLE

if TYPE_CHECKING:
    from sharpcontour.anymask.refiner import MaskRefinerLike

KEPT = "kept as it is"
EMPTY = f"empty, {KEPT}"


def read_photograph(
    photo: Path, masks: Sequence[str | Path], image_id: Any = None
) -> tuple[np.ndarray, list[NamedMask], list[str], bool]:
    """A photograph in that orientation that its masks fit, and these masks.

    See :func:`~sharpcontour.io.images.read_fitting`.

    Args:
        photo: of the photograph.
        masks: files of masks.
        image_id: id of the photograph in a data set's file.

    Returns:
        The pixels, (H, W, 3) uint8 RGB; the masks; lines on how they were understood; and whether the photograph is
        taken as stored, though its EXIF data would turn it.

    Raises:
        InputError: as of :func:`~sharpcontour.io.images.read_fitting` and
            :func:`~sharpcontour.formats.mask_files.read_mask_files`.
    """
    pixels, (given, notes), stored = read_fitting(
        photo, lambda size: read_mask_files(masks, size, photo.name, image_id)
    )
    if stored:
        height, width = pixels.shape[:2]
        notes = [f"{photo}: taken as stored, not turned upright, for the masks are {width} x {height} pixels", *notes]
    return pixels, given, notes, stored


def refine_named(refiner: MaskRefinerLike, pixels: np.ndarray, given: Sequence[NamedMask]) -> Detections:
    """Refine the masks of one photograph; crowds stay as they are, for they have no outline to refine.

    Args:
        refiner: what refines.
        pixels: the photograph, (H, W, 3) uint8 RGB.
        given: the masks, in pixels of it.

    Returns:
        The objects in the same order, ``coarse`` as they were given.

    Raises:
        InputError: for masks that are broken or do not fit the photograph.
    """
    # An empty mask keeps the place of a crowd meanwhile.
    found = refiner.refine(pixels, [[] if mask.crowd else mask.mask for mask in given])
    return _with_crowds(found, given)


def _with_crowds(found: Detections, given: Sequence[NamedMask]) -> Detections:
    """The refined objects, and in their places the crowds as they were given."""
    from sharpcontour.anymask.foreign_masks import read_masks

    assert found.coarse is not None
    places = [k for k, mask in enumerate(given) if mask.crowd]
    crowds = read_masks([given[k].mask for k in places], *found.size)
    boxes, before, after = found.boxes.clone(), list(found.coarse.rings), list(found.rings)
    for k, box, rings in zip(places, crowds.boxes(), crowds.objects, strict=True):
        boxes[k], before[k], after[k] = box, rings, rings
    return replace(found, boxes=boxes, shapes=after, coarse=replace(found.coarse, boxes=boxes, shapes=before))


def changes(found: Detections) -> list[str]:
    """How much each object changed, in a few words.

    Args:
        found: refined objects, ``coarse`` set.
    """
    assert found.coarse is not None
    return [
        _change(found, k, before, after)
        for k, (before, after) in enumerate(zip(found.coarse.rles(), found.rles(), strict=True))
    ]


def _change(found: Detections, k: int, before: RLE, after: RLE) -> str:
    assert found.coarse is not None
    if not found.coarse.rings[k] or not coco_mask.area(before):
        return EMPTY
    if found.rings[k] is found.coarse.rings[k]:
        return KEPT
    iou = float(coco_mask.iou([after], [before], [0])[0, 0])
    share = f"{100 * (1 - iou):.1f} %" if iou < 0.9995 else "less than 0.1 %"
    return f"{share} changed (IoU {iou:.3f} with the given mask)"
