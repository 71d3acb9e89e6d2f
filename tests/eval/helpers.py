"""Ground truth and detections made for the tests, and Boundary AP computed literally from full-image masks."""

from __future__ import annotations

import base64
import contextlib
import copy
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

REAL = Path(__file__).resolve().parents[3] / "shared/evalgt/coco287_gt.json.gz"
NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def read_real(images: int | None = None) -> dict[str, Any]:
    """Annotations of real photographs, the first ``images`` of them."""
    data = json.loads(gzip.decompress(REAL.read_bytes()))
    data["images"] = data["images"][:images]
    kept = {image["id"] for image in data["images"]}
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]
    return data


def encode(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, height, width)
    return coco_mask.decode(segmentation)


def annotation(key: int, image: int, category: int, mask: np.ndarray, **more: Any) -> dict[str, Any]:
    fields = {"id": key, "image_id": image, "category_id": category, "iscrowd": 0, "area": int(mask.sum())}
    return {**fields, "segmentation": encode(mask), **more}


def detection(image: int, category: int, mask: np.ndarray, score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": encode(mask), "score": score}


def blob(rng: np.random.Generator, height: int, width: int, extent: float) -> np.ndarray:
    """A random ellipse, some with a hole, cut by the image border where it leaves it."""
    mask = np.zeros((height, width), np.uint8)
    centre = int(rng.integers(0, width)), int(rng.integers(0, height))
    axes = int(rng.integers(2, extent)), int(rng.integers(2, extent))
    cv2.ellipse(mask, centre, axes, float(rng.integers(0, 180)), 0, 360, 1, -1)
    if rng.random() < 0.3:
        cv2.circle(mask, centre, max(1, min(axes) // 2), 0, -1)
    mask[min(centre[1], height - 1), min(centre[0], width - 1)] = 1
    return mask


def synthetic(rng: np.random.Generator, images: int = 24) -> dict[str, Any]:
    """Images of awkward sizes, one without objects, a category without objects, crowds, areas on the limits."""
    sizes = [(375, 500), (500, 375), (45, 60), (15, 20), (240, 320), (101, 333)]
    data: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": c, "name": f"c{c}"} for c in (3, 7, 9)],
    }
    for index in range(images):
        height, width = sizes[index % len(sizes)]
        data["images"].append({"id": 10 * index + 5, "height": height, "width": width})
        for _ in range(int(rng.integers(1, 8)) if index else 0):
            mask = blob(rng, height, width, 0.4 * min(height, width) + 3)
            area = float(rng.choice([mask.sum(), 1024, 9216], p=[0.8, 0.1, 0.1]))
            fields = {"iscrowd": int(rng.random() < 0.1), "area": area}
            key = 1 + len(data["annotations"])
            data["annotations"].append(annotation(key, 10 * index + 5, int(rng.choice([3, 7])), mask, **fields))
    return data


def make_detections(data: dict[str, Any], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Detections of every kind that an evaluation must cope with."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    categories = [category["id"] for category in data["categories"]]
    found: list[dict[str, Any]] = []
    for truth in data["annotations"]:
        mask = decode(truth["segmentation"], *sizes[truth["image_id"]])
        for _ in range(int(rng.integers(0, 4))):
            score = round(float(rng.random()), int(rng.integers(1, 4)))  # many ties
            category = truth["category_id"] if rng.random() < 0.9 else int(rng.choice(categories))
            found.append(detection(truth["image_id"], category, _disturbed(mask, rng), score))
            if rng.random() < 0.1:
                found.append(dict(found[-1]))
    for image, (height, width) in list(sizes.items())[::3]:
        pixel = np.zeros((height, width), np.uint8)
        pixel[0, -1] = 1
        for mask in (np.zeros_like(pixel), np.ones_like(pixel), pixel):
            found.append(detection(image, int(rng.choice(categories)), mask, float(rng.random())))
    crowded = data["annotations"][0]
    mask = decode(crowded["segmentation"], *sizes[crowded["image_id"]])
    for _ in range(130):  # more than the limit of 100 for an image and category
        score = round(float(rng.random()), 2)
        found.append(detection(crowded["image_id"], crowded["category_id"], _disturbed(mask, rng), score))
    return [found[i] for i in rng.permutation(len(found))]


def _disturbed(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    kind, r = int(rng.integers(0, 5)), int(rng.integers(1, 6))
    kernel = np.ones((2 * r + 1, 2 * r + 1), np.uint8)
    if kind == 0:
        return mask
    if kind == 1:
        return cv2.dilate(mask, kernel)
    if kind == 2:
        return cv2.erode(mask, kernel)  # often empty
    if kind == 3:
        shift = np.array([[1, 0, rng.integers(-6, 7)], [0, 1, rng.integers(-6, 7)]], np.float32)
        return cv2.warpAffine(mask, shift, mask.shape[::-1], flags=cv2.INTER_NEAREST)
    rough = cv2.GaussianBlur(rng.random(mask.shape).astype(np.float32), (0, 0), 3) - 0.5
    return (cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2) + 2 * rough > 0.5).astype(np.uint8)


def literal_boundary(mask: np.ndarray, ratio: float = 0.02) -> np.ndarray:
    """The definition: a frame of zeros, d erosions with a full 3 x 3 square, frame off, mask minus the rest."""
    height, width = mask.shape
    d = max(1, round(ratio * np.sqrt(height**2 + width**2)))
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return mask.astype(np.uint8) - cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=d)[1:-1, 1:-1]


class LiteralBoundaryEval(COCOeval):
    """Boundary AP with the boundaries of all masks, as full-image RLEs."""

    def _prepare(self) -> None:
        super()._prepare()
        for entries in (*self._gts.values(), *self._dts.values()):
            for entry in entries:
                entry["band"] = coco_mask.encode(
                    np.asfortranarray(literal_boundary(coco_mask.decode(entry["segmentation"])))
                )
                entry["ignore"] = entry.get("own_ignore", 0) or entry["iscrowd"]

    def computeIoU(self, imgId: Any, catId: Any) -> Any:
        ious = super().computeIoU(imgId, catId)
        if len(ious) == 0:
            return ious
        truths, found = self._gts[imgId, catId], self._dts[imgId, catId]
        order = np.argsort([-entry["score"] for entry in found], kind="mergesort")[:100]
        crowd = [int(truth["iscrowd"]) for truth in truths]
        bands = coco_mask.iou([found[i]["band"] for i in order], [truth["band"] for truth in truths], crowd)
        return np.where(np.array(crowd, bool)[None], ious, np.minimum(ious, bands))


def reference(
    data: dict[str, Any], found: list[dict[str, Any]], kind: type[COCOeval] = COCOeval
) -> tuple[dict[str, float | None], COCOeval]:
    """pycocotools' twelve numbers in percent, the undefined ones as None; ``found`` must not be empty."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(data)
        for entry in truth.dataset["annotations"]:
            entry["own_ignore"] = entry.get("ignore", 0)
        truth.createIndex()
        evaluator = kind(truth, truth.loadRes(copy.deepcopy(found)), "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    stats = [None if value < 0 else 100 * float(value) for value in evaluator.stats]
    return dict(zip(NAMES, stats, strict=True)), evaluator


def read_page(path: Path | str) -> tuple[dict[str, Any], list[np.ndarray]]:
    """What a page of before and after holds: its data, and its images as pixels, BGR."""
    text = Path(path).read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and text.endswith("</html>\n")
    found = re.findall(r'<script type="([a-z/]+)" id="([a-z0-9]+)">(.*?)</script>', text, re.DOTALL)
    assert [name for _, name, _ in found] == [*(f"jpeg{k}" for k in range(len(found) - 1)), "page"]
    files = [np.frombuffer(base64.b64decode(data), np.uint8) for _, _, data in found[:-1]]
    return json.loads(found[-1][2]), [cv2.imdecode(file, cv2.IMREAD_COLOR) for file in files]
