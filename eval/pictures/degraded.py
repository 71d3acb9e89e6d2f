"""The worse masks that lost most by refinement, as given and as refined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data import DatasetLike
from eval.boundary import boundary_iou
from eval.degraded import MaskRefinerLike, worse_mask
from eval.pictures import pairs
from sharpcontour.anymask.pictures import drawing
from sharpcontour.contours.tracing import trace_mask


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
    annotations = {annotation["id"]: annotation for annotation in truth["annotations"]}
    chosen: dict[str, list[pairs.Pair]] = {}
    for one in worst:
        image = dataset.read_image(place[one["image_id"]])
        mask, wanted = worse_mask(annotations[one["annotation_id"]], one["kind"], (image.shape[0], image.shape[1]))
        refined = refiner.refine(image, [mask])
        ious = boundary_iou(wanted, mask), boundary_iou(wanted, refined.masks()[0])
        pair = pairs.Pair(image, trace_mask(mask), refined.rings[0], trace_mask(wanted), ious)
        chosen.setdefault(one["kind"].replace("_", " "), []).append(pair)
    if chosen:
        drawing.save(
            folder / "worst.png", pairs.sheet(chosen, ("as given", "refined; the white line is the annotation"))
        )
