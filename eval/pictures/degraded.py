"""The worse masks that lost most by refinement, as given and as refined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data import DatasetLike
from eval.boundary import boundary_iou
from eval.degraded import judged_objects, own_masks, worse_masks
from eval.pictures import pairs
from sharpcontour.anymask.refiner import MaskRefinerLike
from sharpcontour.contours.tracing import trace_mask
from sharpcontour.pictures import drawing


def draw_worst(
    refiner: MaskRefinerLike, dataset: DatasetLike, worst: Sequence[Mapping[str, Any]], folder: Path
) -> None:
    """Write "worst.png": a row for each kind of mask, in it the masks of this kind, each twice.

    Args:
        refiner: of given masks.
        dataset: of the validation images.
        worst: of the result of :func:`eval.degraded.evaluate_degraded`.
        folder: for the file.
    """
    truth = dataset.ground_truth()
    place = {image["id"]: k for k, image in enumerate(truth["images"])}
    of_image = judged_objects(truth["annotations"])
    chosen: dict[str, list[pairs.Pair]] = {}
    for one in worst:
        image, annotations = dataset.read_image(place[one["image_id"]]), of_image[one["image_id"]]
        wanted = own_masks(annotations, image)
        masks = worse_masks(annotations, wanted, one["kind"])
        refined = refiner.refine(image, masks)  # together, as they were judged
        k = [annotation["id"] for annotation in annotations].index(one["annotation_id"])
        ious = boundary_iou(wanted[k], masks[k]), boundary_iou(wanted[k], refined.masks()[k])
        pair = pairs.Pair(image, trace_mask(masks[k]), refined.rings[k], trace_mask(wanted[k]), ious)
        chosen.setdefault(one["kind"].replace("_", " "), []).append(pair)
    if chosen:
        titles = ("before", "refined; the white line is the annotation")
        drawing.save(folder / "worst.png", pairs.sheet(chosen, titles))
