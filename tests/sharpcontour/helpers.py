"""Masks, contours and odd files that several tests start from."""

from __future__ import annotations

import gzip
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from sharpcontour.config import EvolutionConfig, TracingConfig
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.contours.tracing import contours_from_rings, trace_mask
from sharpcontour.contours.types import Contours
from sharpcontour.evolution import evolve
from sharpcontour.masks.packed import PackedMasks

EVALGT = Path(__file__).resolve().parents[3] / "shared" / "evalgt" / "coco287_gt.json.gz"


def coco_masks(count: int, seed: int = 0, min_area: int = 64) -> list[np.ndarray]:
    """Binary masks of random non-crowd COCO objects, at full image size."""
    data = json.loads(gzip.decompress(EVALGT.read_bytes()))
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    objects = [a for a in data["annotations"] if not a["iscrowd"] and a["area"] >= min_area]
    chosen = np.random.default_rng(seed).permutation(len(objects))[:count]
    return [annotation_mask(objects[i], *sizes[objects[i]["image_id"]]) for i in chosen]


def annotation_mask(annotation: dict[str, Any], height: int, width: int) -> np.ndarray:
    rles = coco_mask.frPyObjects(annotation["segmentation"], height, width)
    return coco_mask.decode(coco_mask.merge(rles)).astype(bool)


def exact_classifier(masks: list[np.ndarray], instance: Tensor):
    """A perfect phi: hard 0 or 1 from the mask of each ring's instance, as logits."""
    height, width = max(m.shape[0] for m in masks), max(m.shape[1] for m in masks)
    stack = torch.zeros(len(masks), height, width, dtype=torch.bool)
    for k, mask in enumerate(masks):
        stack[k, : mask.shape[0], : mask.shape[1]] = torch.from_numpy(mask)

    def classify(points: Tensor, rings: Tensor | None = None) -> Tensor:
        x, y = points.floor().long().unbind(-1)
        on = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        owner = instance if rings is None else instance[rings]
        inside = on & stack[owner[:, None], y.clamp(0, height - 1), x.clamp(0, width - 1)]
        return torch.where(inside, -50.0, 50.0)

    return classify


def rings_around(rings: int, vertices: int) -> Tensor:
    """Circles (R, N, 2) around (115, 110) pixels, each larger than the one before."""
    angle = torch.arange(vertices) * (2 * torch.pi / vertices)
    radius = 10 + 70 * torch.arange(1, rings + 1) / max(rings, 1)
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    return torch.tensor([115.0, 110.0]) + radius[:, None, None] * circle


def iou(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def boundary_iou(a: np.ndarray, b: np.ndarray, ratio: float = 0.02) -> float:
    """IoU of the inner bands of round(ratio * diagonal) pixels, the outside counted as background."""
    width = max(1, round(ratio * float(np.hypot(*a.shape))))
    return iou(band(a, width), band(b, width))


def band(mask: np.ndarray, width: int) -> np.ndarray:
    padded = np.pad(mask, 1).astype(np.uint8)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)
    return mask & ~eroded[1:-1, 1:-1].astype(bool)


def binary_roi(mask: np.ndarray, box: np.ndarray, size: int = 28) -> np.ndarray:
    """The mask at the centres of a size x size grid over its box."""
    x0, y0, x1, y1 = box
    columns = x0 + (np.arange(size) + 0.5) * (x1 - x0) / size
    rows = y0 + (np.arange(size) + 0.5) * (y1 - y0) / size
    return mask[rows.astype(int)[:, None], columns.astype(int)[None]]


def grown_contours(masks: list[np.ndarray], boxes: np.ndarray, offset: float) -> Contours:
    """The outer contours of the masks moved outwards by ``offset`` times the square root of the box area."""
    rings = []
    for mask, box in zip(masks, boxes, strict=True):
        pad = int(np.ceil(offset * np.sqrt((box[2:] - box[:2]).prod()))) + 2
        padded = np.pad(mask, pad).astype(np.uint8)
        distance = cv2.distanceTransform(1 - padded, cv2.DIST_L2, 5)
        grown = distance <= offset * np.sqrt((box[2:] - box[:2]).prod())
        rings.append([ring - pad for ring in trace_mask(grown)])
    return contours_from_rings(rings, 128, TracingConfig(), "cpu")


def score_evolution(
    contours: Contours, boxes: np.ndarray, masks: list[np.ndarray], config: EvolutionConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (IoU, Boundary IoU) before and after an evolution with a perfect classifier."""
    size = torch.from_numpy(boxes[:, 2:] - boxes[:, :2])
    limits = torch.tensor([mask.shape[::-1] for mask in masks], dtype=torch.float32)
    course = evolve(
        contours.vertices,
        contours.hole,
        size.prod(1)[contours.instance],
        limits[contours.instance],
        exact_classifier(masks, contours.instance),
        config,
    )
    scores = []
    for vertices in (course.steps[0], course.steps[-1]):
        objects = Contours(vertices, contours.instance, contours.hole, contours.carried).rings()
        found = [rings_to_masks([rings], *mask.shape)[0] for rings, mask in zip(objects, masks, strict=True)]
        pairs = list(zip(found, masks, strict=True))
        scores.append(np.array([[iou(a, b), boundary_iou(a, b)] for a, b in pairs]).mean(0))
    return scores[0], scores[1]


def packed_masks(masks: np.ndarray) -> PackedMasks:
    """A (K, H, W) stack of masks, each cut down to its box as a loader does it."""
    parts, crops = [], []
    for mask in np.asarray(masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows) == 0:
            crops.append((0, 0, 0, 0))
            continue
        y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        parts.append(mask[y0:y1, x0:x1])
        crops.append((x0, y0, x1 - x0, y1 - y0))
    return PackedMasks.from_crops(parts, np.array(crops, np.int64).reshape(-1, 4))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def huge_png(side: int = 20_000) -> bytes:
    """A few bytes that say they are a square image."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(bytes(100))) + _chunk(b"IEND", b"")


def not_utf8(folder: Path, name: bytes = b"caf\xe9.png") -> Path:
    """An empty file whose name is Latin-1, where the system takes such names."""
    path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
    try:
        path.write_bytes(b"")
    except (OSError, ValueError):
        pytest.skip("file names are text here")
    return path
