"""A small COCO-format set on disk, made for each test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data import DataConfig

SQUARE = [10.0, 8.0, 30.0, 8.0, 30.0, 28.0, 10.0, 28.0]
CATEGORIES = [{"id": 9, "name": "nine"}, {"id": 2, "name": "two"}, {"id": 90, "name": "ninety"}]


def annotation(number: int, image_id: int = 1, **changes: Any) -> dict[str, Any]:
    values = {
        "id": number,
        "image_id": image_id,
        "category_id": 9,
        "segmentation": [SQUARE],
        "bbox": [10.0, 8.0, 20.0, 20.0],
        "area": 400.0,
        "iscrowd": 0,
    }
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


def image_entry(number: int, width: int = 64, height: int = 48) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.png", "width": width, "height": height}


def write_set(
    folder: Path, annotations: list[dict[str, Any]], images: list[dict[str, Any]] | None = None, **changes: Any
) -> DataConfig:
    """Annotations and plain pictures; the config reads them as both splits."""
    images = images or [image_entry(1)]
    for entry in images:
        shade = np.full((entry["height"], entry["width"], 3), entry["id"] % 256, np.uint8)
        assert cv2.imwrite(str(folder / entry["file_name"]), shade)
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    values: dict[str, Any] = {"name": "coco", "short_sides": (48,), "test_short_side": 48, "flip": 0.0, **changes}
    for split in ("train", "val"):
        values[f"{split}_json"], values[f"{split}_images"] = str(path), str(folder)
    return DataConfig(**values)


def runs(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths of a (H, W) mask, counted by hand."""
    counts, value = [0], 0
    for pixel in mask.T.ravel().astype(int).tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts
