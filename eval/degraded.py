"""What a refiner of given masks does to masks made worse: a table instead of an average precision.

Every annotated object of a data set gets a worse mask of every kind of ``data/degrade.py`` at its usual strength,
always the same one, and all masks of one kind on an image are refined together. Other ways to refine them, such as
GrabCut, can be judged beside it on the same masks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from data import DatasetLike
from data.degrade import KINDS, degrade
from eval.boundary import boundary_iou
from eval.processes import gather_objects, rank_and_size
from eval.results import left_out_line
from sharpcontour.anymask.refiner import MaskRefinerLike
from sharpcontour.errors import InputError
from sharpcontour.io.images import ImageError
from sharpcontour.masks.segmentation import to_rle

MEASURES = ("IoU", "Boundary IoU 2 %", "Boundary IoU 0.5 %")
RATIOS = (0.02, 0.005)  # of the image diagonal: widths of the two boundary bands
SMALLEST = 400.0  # px^2, annotated area of the objects that are judged
SIZES = (20, 40, 60, 80, 120, 200)  # px, square roots of areas, from which objects are told apart
WORST = 10  # masks that lost most, by name

Masks = list[np.ndarray]
Method = Callable[[np.ndarray, Masks], Masks]
"""An image (H, W, 3) uint8 RGB and K masks (H, W) bool -> K masks in the same order."""


@dataclass
class Judged:
    """One worse mask, and its scores (2, 3), 0 to 1: before and after, by each of :data:`MEASURES`.

    ``area`` is the annotated one of its object, in square pixels.
    """

    image_id: int
    annotation_id: int
    source: str
    kind: str
    area: float
    scores: np.ndarray


def evaluate_degraded(
    refiner: MaskRefinerLike,
    dataset: DatasetLike,
    kinds: Sequence[str] = tuple(KINDS),
    progress: bool = True,
    others: Mapping[str, Method] | None = None,
) -> dict[str, Any]:
    """Refine worse masks of all objects of a data set, on one process or many.

    Args:
        refiner: of given masks.
        dataset: of the validation images.
        kinds: names in :data:`data.degrade.KINDS`.
        progress: whether rank 0 shows a bar, if there is a terminal to show it.
        others: further ways to refine the same masks, by name.

    Returns:
        The same on every process. "masks": of each kind and :data:`MEASURES` the means "before" and "after" in percent;
        of Boundary IoU 2 % also "improved" and "harmed", shares of the masks in percent, and "worst", the largest loss.
        "sources": the same for the images of each "source", where the annotations tell one. "sizes": the same for
        objects of each of :data:`SIZES` and more, as "20 to 40 px". "worst": the ten masks that lost most, "image_id",
        "annotation_id", "kind" and "gain" in Boundary IoU 2 %. "others": of each name "masks" and "seconds".
        "objects", "images", and "seconds" of the refinement alone, over all processes. "left_out": what was wrong with
        each image that cannot be used.

    Raises:
        InputError: where no object is large enough, or no image can be used.
    """
    rank, world = rank_and_size()
    methods = {"": refined_by(refiner), **(others or {})}
    truth = dataset.ground_truth()
    of_image = judged_objects(truth["annotations"])
    places = [i for i, image in enumerate(truth["images"]) if image["id"] in of_image][rank::world]
    own: dict[str, list[Judged]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    left_out: list[str] = []
    for place in tqdm(places, desc="evaluation", unit="image", disable=None if progress and rank == 0 else True):
        entry = truth["images"][place]
        try:
            image = dataset.read_image(place)
        except ImageError as error:
            left_out.append(str(error))
            continue
        _judge(methods, image, entry, of_image[entry["id"]], kinds, own, seconds)
    parts = gather_objects((own, seconds, len(places) - len(left_out), left_out))
    rows = {name: [row for part, *_ in parts for row in part[name]] for name in methods}
    spent = {name: sum(part[name] for _, part, *_ in parts) for name in methods}
    if not rows[""]:
        missing = [line for *_, lines in parts for line in lines]
        raise InputError(
            f"no mask to judge: no object of {SMALLEST:.0f} square pixels or more"
            + (f" on images that can be read; the first: {missing[0]}" if missing else "")
        )
    sources = sorted({row.source for row in rows[""]} - {""})
    return {
        "masks": _table(rows[""], kinds),
        "sources": {source: _table([row for row in rows[""] if row.source == source], kinds) for source in sources},
        "sizes": _by_size(rows[""], kinds),
        "worst": _worst(rows[""]),
        "others": {name: {"masks": _table(rows[name], kinds), "seconds": spent[name]} for name in methods if name},
        "objects": len(rows[""]) // max(len(kinds), 1),
        "images": sum(count for _, _, count, _ in parts),
        "left_out": [line for *_, lines in parts for line in lines],
        "seconds": spent[""],
    }


def refined_by(refiner: MaskRefinerLike) -> Method:
    """What a refiner of given masks makes of masks."""
    return lambda image, masks: list(refiner.refine(image, masks).masks())


def judged_objects(annotations: Iterable[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """The annotated objects that are judged, by image id: no crowds, none smaller than :data:`SMALLEST`."""
    of_image: dict[int, list[Mapping[str, Any]]] = {}
    for annotation in annotations:
        if not annotation.get("iscrowd") and annotation["area"] >= SMALLEST:
            of_image.setdefault(annotation["image_id"], []).append(annotation)
    return of_image


def own_masks(annotations: Sequence[Mapping[str, Any]], image: np.ndarray) -> Masks:
    """The masks of annotated objects of an image (H, W, 3) as they are."""
    height, width = image.shape[:2]
    return [coco_mask.decode(to_rle(one["segmentation"], height, width)).astype(bool) for one in annotations]


def worse_masks(annotations: Sequence[Mapping[str, Any]], own: Masks, kind: str) -> Masks:
    """The worse masks of a kind that annotated objects' own are replaced by, always the same ones."""
    seed = list(KINDS).index(kind)
    pairs = zip(annotations, own, strict=True)
    return [degrade(mask, kind, 1.0, np.random.default_rng((one["id"], seed))) for one, mask in pairs]


def _judge(
    methods: Mapping[str, Method],
    image: np.ndarray,
    entry: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    kinds: Sequence[str],
    rows: Mapping[str, list[Judged]],
    seconds: dict[str, float],
) -> None:
    """Add the scores of all worse masks of one image to ``rows``, and what each method took to ``seconds``."""
    source, wanted = str(entry.get("source", "")), own_masks(annotations, image)
    for kind in kinds:
        masks = worse_masks(annotations, wanted, kind)
        before = [_scores(mask, own) for mask, own in zip(masks, wanted, strict=True)]
        for name, method in methods.items():
            begin = time.perf_counter()
            refined = method(image, masks)
            seconds[name] += time.perf_counter() - begin
            for one, own, first, mask in zip(annotations, wanted, before, refined, strict=True):
                scores = np.array([first, _scores(mask, own)])
                rows[name].append(Judged(entry["id"], one["id"], source, kind, float(one["area"]), scores))


def _scores(mask: np.ndarray, wanted: np.ndarray) -> list[float]:
    """IoU and both Boundary IoUs, 0 to 1."""
    iou = (mask & wanted).sum() / max((mask | wanted).sum(), 1)
    return [float(iou), *(boundary_iou(mask, wanted, ratio) for ratio in RATIOS)]


def _gain(row: Judged) -> float:
    """In Boundary IoU 2 %, percent."""
    return 100 * float(row.scores[1, 1] - row.scores[0, 1])


def _worst(rows: Sequence[Judged]) -> list[dict[str, Any]]:
    lost = sorted(rows, key=_gain)[:WORST]
    return [
        {"image_id": row.image_id, "annotation_id": row.annotation_id, "kind": row.kind, "gain": _gain(row)}
        for row in lost
    ]


def _by_size(rows: Sequence[Judged], kinds: Sequence[str]) -> dict[str, Any]:
    tables = {}
    for low, high in zip(SIZES, (*SIZES[1:], None), strict=True):
        chosen = [row for row in rows if low**2 <= row.area and (high is None or row.area < high**2)]
        name = f"{low} px and more" if high is None else f"{low} to {high} px"
        tables[name] = {"objects": len(chosen) // max(len(kinds), 1), **_table(chosen, kinds)}
    return {name: table for name, table in tables.items() if table["objects"]}


def _table(rows: Sequence[Judged], kinds: Sequence[str]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for kind in kinds:
        scores = [row.scores for row in rows if row.kind == kind]
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
    count = max(result["objects"] * len(result["masks"]), 1)
    lines = _format_table(result["masks"])
    lines.append(
        f"{result['objects']} objects on {result['images']} images; {1000 * result['seconds'] / count:.0f} ms a mask"
    )
    if left_out := left_out_line(result, "are not judged"):
        lines.append(left_out)
    for name, other in result["others"].items():
        lines += ["", f"{name}; {1000 * other['seconds'] / count:.0f} ms a mask", *_format_table(other["masks"])]
    return "\n".join(lines)


def _format_table(masks: Mapping[str, Any]) -> list[str]:
    head = "".join(f"{name:>24}" for name in MEASURES)
    lines = [f"{'':11}{head}   improved  harmed   worst"]
    for kind, row in masks.items():
        cells = ""
        for name in MEASURES:
            before, after = row[name]["before"], row[name]["after"]
            cells += f"{before:>10.1f}{after:>7.1f}{after - before:>+7.1f}"
        lines.append(f"{kind:11}{cells}{row['improved']:>9.0f} %{row['harmed']:>6.0f} %{row['worst']:>+8.1f}")
    return lines
