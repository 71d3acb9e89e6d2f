"""What a refiner of given masks does to masks made worse: a table instead of an average precision.

Every annotated object of a data set gets a worse mask of every kind of ``data/degrade.py`` at its usual strength,
always the same one, and all masks of an image are refined together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch.distributed as dist
from pycocotools import mask as coco_mask
from tqdm import tqdm

from data import DatasetLike
from data.degrade import KINDS, degrade
from eval.boundary import boundary_iou
from models.predictor import Predictor
from sharpcontour.contours.rasterize import rings_to_rles
from sharpcontour.masks.segmentation import to_rle

MEASURES = ("IoU", "Boundary IoU 2 %", "Boundary IoU 0.5 %")
RATIOS = (0.02, 0.005)  # of the image diagonal: widths of the two boundary bands
SMALLEST = 400.0  # px^2, annotated area of the objects that are judged


def evaluate_degraded(
    predictor: Predictor, dataset: DatasetLike, kinds: Sequence[str] = tuple(KINDS), progress: bool = True
) -> dict[str, Any]:
    """Refine worse masks of all objects of a data set, on one process or many.

    Args:
        predictor: its model is given masks.
        dataset: of the validation images.
        kinds: names in :data:`data.degrade.KINDS`.
        progress: whether rank 0 shows a bar, if there is a terminal to show it.

    Returns:
        The same on every process. "masks": of each kind and :data:`MEASURES` the means "before" and "after" in percent;
        of Boundary IoU 2 % also "improved" and "harmed", shares of the masks in percent, and "worst", the largest loss.
        "sources": the same for the images of each "source", where the annotations tell one. "objects", "images", and
        "seconds" of the refinement alone, over all processes.
    """
    rank = dist.get_rank() if dist.is_initialized() else 0
    world = dist.get_world_size() if dist.is_initialized() else 1
    truth = dataset.ground_truth()
    of_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in truth["annotations"]:
        if not annotation.get("iscrowd") and annotation["area"] >= SMALLEST:
            of_image.setdefault(annotation["image_id"], []).append(annotation)
    places = [i for i, image in enumerate(truth["images"]) if image["id"] in of_image][rank::world]
    rows: list[tuple[str, str, np.ndarray]] = []
    seconds = 0.0
    for place in tqdm(places, desc="evaluation", unit="image", disable=None if progress and rank == 0 else True):
        entry = truth["images"][place]
        found, spent = _judge(predictor, dataset.read_image(place), of_image[entry["id"]], kinds)
        rows += [(str(entry.get("source", "")), kind, scores) for kind, scores in found]
        seconds += spent
    parts = _gathered((rows, seconds, len(places)))
    every = [row for part, _, _ in parts for row in part]
    sources = sorted({source for source, _, _ in every} - {""})
    return {
        "masks": _table(every, kinds),
        "sources": {source: _table([row for row in every if row[0] == source], kinds) for source in sources},
        "objects": len(every) // max(len(kinds), 1),
        "images": sum(count for _, _, count in parts),
        "seconds": sum(spent for _, spent, _ in parts),
    }


def _judge(
    predictor: Predictor, image: np.ndarray, annotations: Sequence[Mapping[str, Any]], kinds: Sequence[str]
) -> tuple[list[tuple[str, np.ndarray]], float]:
    """(2, 3) scores before and after of every mask of one image with its kind, and the seconds of the refinement."""
    height, width = image.shape[:2]
    labels, truths, masks = [], [], []
    for annotation in annotations:
        wanted = coco_mask.decode(to_rle(annotation["segmentation"], height, width)).astype(bool)
        rng = np.random.default_rng(annotation["id"])
        for kind in kinds:
            labels.append(kind)
            truths.append(wanted)
            masks.append(degrade(wanted, kind, 1.0, rng))
    begin = time.perf_counter()
    refined = predictor.refine(image, masks)
    spent = time.perf_counter() - begin
    after = [coco_mask.decode(rle).astype(bool) for rle in rings_to_rles(refined.rings, height, width)]
    rows = zip(labels, truths, masks, after, strict=True)
    return [(kind, np.array([_scores(a, wanted), _scores(b, wanted)])) for kind, wanted, a, b in rows], spent


def _scores(mask: np.ndarray, wanted: np.ndarray) -> list[float]:
    """IoU and both Boundary IoUs, 0 to 1."""
    iou = (mask & wanted).sum() / max((mask | wanted).sum(), 1)
    return [float(iou), *(boundary_iou(mask, wanted, ratio) for ratio in RATIOS)]


def _table(rows: Sequence[tuple[str, str, np.ndarray]], kinds: Sequence[str]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for kind in kinds:
        scores = [row for _, name, row in rows if name == kind]
        if not scores:
            continue
        before, after = 100 * np.array(scores).transpose(1, 0, 2)
        gain = after[:, 1] - before[:, 1]
        table[kind] = {
            name: {"before": float(before[:, k].mean()), "after": float(after[:, k].mean())}
            for k, name in enumerate(MEASURES)
        }
        table[kind]["improved"] = float(100 * (gain > 0).mean())
        table[kind]["harmed"] = float(100 * (gain < 0).mean())
        table[kind]["worst"] = float(gain.min())
    return table


def format_degraded(result: Mapping[str, Any]) -> str:
    """The table of :func:`evaluate_degraded` as text: of every kind each measure before, after and the gain."""
    head = "".join(f"{name:>24}" for name in MEASURES)
    lines = [f"{'':11}{head}   improved  harmed   worst"]
    for kind, row in result["masks"].items():
        cells = ""
        for name in MEASURES:
            before, after = row[name]["before"], row[name]["after"]
            cells += f"{before:>10.1f}{after:>7.1f}{after - before:>+7.1f}"
        lines.append(f"{kind:11}{cells}{row['improved']:>9.0f} %{row['harmed']:>6.0f} %{row['worst']:>+8.1f}")
    each = 1000 * result["seconds"] / max(result["objects"] * len(result["masks"]), 1)
    lines.append(f"{result['objects']} objects on {result['images']} images; {each:.0f} ms a mask")
    return "\n".join(lines)


def _gathered(value: Any) -> list[Any]:
    """What every process gave, on every process."""
    if not dist.is_initialized():
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered
