"""What the refiner does to contours of known quality: not an AP, but IoU before and after, and how good phi is.

Every ground-truth object is given three initial contours: from its own mask reduced to a 28x28 grid, as it is and with
noise, and from its own outline smoothed. Box and classifier are its own too: no error of a detector hides one of phi.
The host's own contours come from the detections that match an object.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from data.degrade import noisy_roi, soft_roi
from eval.boundary import boundary_iou
from eval.diagnostics.probe import Probe, objects_inputs, probe
from sharpcontour.config import TracingConfig
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.contours.tracing import contours_from_masks, contours_from_rings, trace_mask
from sharpcontour.contours.types import Contours
from sharpcontour.host import RefinerInputs
from sharpcontour.masks.box import bounding_box
from sharpcontour.refined_model import RefinedModel

KINDS = ("ideal28", "noisy28", "smooth", "host")


def tight_box(mask: np.ndarray) -> np.ndarray:
    """The box xyxy (4,) float32 around the pixels of a mask that is not empty."""
    return np.array(bounding_box(mask), np.float32)


def smoothed_contours(
    masks: list[np.ndarray], vertices: int = 128, sigma: float = 3.0, config: TracingConfig | None = None
) -> Contours:
    """The masks' outlines, smoothed along the contour by a Gaussian of ``sigma`` vertices: the error of snakes."""
    rings = [trace_mask(mask) for mask in masks]
    contours = contours_from_rings(rings, vertices, config or TracingConfig(), "cpu")
    offsets = torch.arange(-12, 13)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    shifted = [w * contours.vertices.roll(int(o), 1) for w, o in zip(weights / weights.sum(), offsets, strict=True)]
    return replace(contours, vertices=torch.stack(shifted).sum(0))


@torch.no_grad()
def refinement_study(model: RefinedModel, samples: Iterable[tuple[Tensor, np.ndarray, Tensor]]) -> dict[str, Any]:
    """Run the study on images that the model takes as they are.

    Args:
        model: in evaluation mode.
        samples: image (3, H, W) uint8, masks (K, H, W) bool and labels (K,) of each.

    Returns:
        "all" objects; "detected" of them; for each of "ideal28", "noisy28", "smooth" and "host" the mean (IoU, Boundary
        IoU) in percent of C(0) to C(n), as a list of pairs; "phi", what :meth:`Probe.summary` tells of the classifier.
        What there is no object for is left out.
    """
    rng, probes, total = np.random.default_rng(0), [], 0
    scores: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    config = model.refiner.config
    for image, masks, labels in samples:
        total += len(labels)
        if len(labels) == 0:
            continue
        wanted = list(masks)
        boxes = torch.from_numpy(np.array([tight_box(mask) for mask in wanted], np.float32))
        ideal = [soft_roi(mask, box) for mask, box in zip(wanted, boxes.numpy(), strict=True)]
        noisy = [noisy_roi(soft, rng) for soft in ideal]
        starts = {
            "ideal28": contours_from_masks(np.stack(ideal), boxes, config.evolution.vertices, config.tracing),
            "noisy28": contours_from_masks(np.stack(noisy), boxes, config.evolution.vertices, config.tracing),
            "smooth": smoothed_contours(wanted, config.evolution.vertices, config=config.tracing),
        }
        inputs = objects_inputs(model, image, boxes)
        for kind, contours in starts.items():
            moved = replace(inputs, contours=contours.to(inputs.boxes.device))
            scores[kind].extend(_course_scores(model, moved, wanted))
        if config.classifier.output == "phi":
            probes.append(probe(model, inputs, wanted))
        found, inputs = model.host.detect([image])
        objects, chosen = _matches(boxes, labels, inputs.boxes.cpu(), found[0].labels)
        if len(objects):
            coarse = model.refiner.initial_contours(inputs)
            inputs = replace(inputs, contours=coarse, images=[image]).select(chosen.to(inputs.boxes.device))
            scores["host"].extend(_course_scores(model, inputs, [wanted[k] for k in objects]))
    means = {kind: (100 * np.mean(rows, axis=0)).tolist() for kind, rows in scores.items() if rows}
    return {"all": total, "detected": len(scores["host"]), **means, "phi": Probe.join(probes).summary()}


def format_study(found: dict[str, Any]) -> str:
    """The study as a table: a line for each kind of initial contour, a column for each iteration."""
    lines = [
        f"{found['all']} objects, {found['detected']} detected; IoU / Boundary IoU before and after each iteration"
    ]
    for kind in filter(found.get, KINDS):
        pairs = "   ".join(f"{iou:5.1f} / {boundary:4.1f}" for iou, boundary in found[kind])
        lines.append(f"{kind:8} {pairs}")
    if not found["phi"]["calibration"]:  # a regression tells no phi
        return "\n".join(lines)
    for key, title in (("accuracy", "verdicts that are right"), ("sharpness", "mean |phi - 0.5|")):
        lines.append(f"{title}: " + ", ".join(f"{v:.3f} at {distance} px" for distance, v in found["phi"][key].items()))
    bins = ", ".join(f"{one['phi']:.2f}: {one['outside']:.2f}" for one in found["phi"]["calibration"])
    return "\n".join([*lines, f"phi, and the share of such points that lie outside: {bins}"])


def _matches(boxes: Tensor, labels: Tensor, found: Tensor, found_labels: Tensor) -> tuple[list[int], Tensor]:
    """Objects with a detection of their class and IoU of at least 0.5, and the best such detection of each."""
    if len(found) == 0:
        return [], torch.zeros(0, dtype=torch.int64)
    overlap = box_iou(boxes, found) * (labels[:, None] == found_labels[None])
    best, index = overlap.max(1)
    objects = (best >= 0.5).nonzero()[:, 0]
    return objects.tolist(), index[objects]


def _course_scores(
    model: RefinedModel, inputs: RefinerInputs, masks: list[np.ndarray]
) -> list[list[tuple[float, float]]]:
    """(IoU, Boundary IoU) of C(0) to C(n) for every object."""
    course = model.refiner.refine(inputs)
    assert inputs.contours is not None
    steps = [replace(inputs.contours, vertices=step).rings() for step in course.steps]
    size = masks[0].shape
    rows = []
    for k, mask in enumerate(masks):
        found = rings_to_masks([step[k] for step in steps], *size)
        rows.append([((m & mask).sum() / max((m | mask).sum(), 1), boundary_iou(m, mask)) for m in found])
    return rows
