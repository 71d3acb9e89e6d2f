"""Resizing, flipping and rasterising of images and their objects.

Coordinates are continuous: pixel (row i, column j) covers [j, j + 1) x [i, i + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from data.config import Resize
from sharpcontour.contours.tracing import trace_mask
from sharpcontour.contours.types import Rings
from sharpcontour.host import Target, TargetBuilder
from sharpcontour.masks.box import bounding_box
from sharpcontour.masks.segmentation import reach_of

if TYPE_CHECKING:
    from torch import Tensor

MIN_BOX = 1e-5  # px: objects whose clipped box is thinner are dropped


class Sample(TypedDict):
    """An image of a data set at network-input size, and its target."""

    image: Tensor  # (3, H, W) uint8 RGB, or float32, 0 to 255
    target: Target


@dataclass
class Crop:
    """A binary mask (h, w) uint8 of which only a window is kept; ``x0``, ``y0`` is the pixel where that begins."""

    x0: int
    y0: int
    mask: np.ndarray


@dataclass
class Instances:
    """The K objects of one image, in its pixels.

    Attributes:
        boxes: (K, 4) float32 xyxy.
        labels: (K,) int64 class indices.
        rings: K objects as lists of (n, 2) float32 rings.
        masks: K crops.
        parts: (K,) int64, number of outer polygons that make up each object.
    """

    boxes: np.ndarray
    labels: np.ndarray
    rings: list[Rings]
    masks: list[Crop]
    parts: np.ndarray


def network_size(height: int, width: int, short_side: int, max_side: int, mode: Resize = "opencv") -> tuple[int, int]:
    """(height, width) with a shorter side of ``short_side`` px, or less where the longer would exceed ``max_side``.

    "opencv" and "detectron2" round to the nearest pixel, "mmcv" too but from one factor for both sides, "torchvision"
    down.
    """
    if mode in ("torchvision", "mmcv"):
        factor, half = _factor(height, width, short_side, max_side), 0.0 if mode == "torchvision" else 0.5
        return max(1, int(height * factor + half)), max(1, int(width * factor + half))
    scale = short_side / min(height, width)
    h, w = (short_side, scale * width) if height < width else (scale * height, short_side)
    if max(h, w) > max_side:
        scale = max_side / max(h, w)
        h, w = h * scale, w * scale
    return max(1, int(h + 0.5)), max(1, int(w + 0.5))


def _factor(height: int, width: int, short_side: int, max_side: int) -> float:
    return min(short_side / min(height, width), max_side / max(height, width))


def resize_image(image: np.ndarray, short_side: int, max_side: int, mode: Resize) -> np.ndarray:
    """An image (H, W, 3) uint8 at the size of :func:`network_size`, by the rule that a model's weights have learned.

    "opencv": bilinear, area averages where it shrinks: the fastest. "detectron2": Pillow's bilinear, which averages
    where it shrinks; torch's antialias=True differs from it by a level here and there. "mmcv": OpenCV's bilinear, where
    it shrinks too. "torchvision": bilinear without anti-aliasing and without rounding, so the result is float32, 0 to
    255.
    """
    height, width = image.shape[:2]
    size = network_size(height, width, short_side, max_side, mode)
    if mode == "opencv":
        return resize(image, *size)
    if mode == "mmcv":
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    if mode == "detectron2":
        from PIL import Image

        return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    from torch.nn.functional import interpolate

    pixels = to_tensor(image)[None]
    if size[0] == 1 or size[1] == 1:  # with the factor, a side could round down to nothing
        scaled = interpolate(pixels.float(), size, mode="bilinear")
    else:  # the factor, not the size: the sampled places depend on it
        factor = _factor(height, width, short_side, max_side)
        scaled = interpolate(pixels.float(), scale_factor=factor, mode="bilinear", recompute_scale_factor=True)
    return scaled[0].permute(1, 2, 0).numpy()


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A uint8 image at another size: bilinear; where it shrinks, averaged over the pixels that fall together."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height < image.shape[0] and width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) array to (3, H, W) tensor of the same type."""
    import torch  # here: annotations and images are checked without tensors, so without torch

    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def polygons_to_crop(polygons: Sequence[np.ndarray], height: int, width: int) -> Crop:
    """The union of polygons as pycocotools rasterises it on the (height, width) image, made on a crop only.

    The window begins at a whole pixel below every coordinate and ends above it, or at the border of the image, so the
    pixels are the very same ones. Polygons may leave the image.
    """
    points = np.concatenate(polygons).astype(np.float64)
    low, high = np.floor(points.min(0)).astype(int) - 1, np.ceil(points.max(0)).astype(int) + 1
    limit = np.array([width, height])
    (x0, y0), (x1, y1) = low.clip(0, limit), high.clip(0, limit)
    w, h = int(x1 - x0), int(y1 - y0)
    if w <= 0 or h <= 0:
        return Crop(0, 0, np.zeros((0, 0), np.uint8))
    origin = np.array([x0, y0], np.float64)
    reach = reach_of(height, width)
    shifted = [(np.clip(polygon.astype(np.float64), -reach, reach) - origin).ravel() for polygon in polygons]
    mask = coco_mask.decode(coco_mask.frPyObjects(shifted, h, w)).any(axis=2)
    return trim(Crop(int(x0), int(y0), mask.astype(np.uint8)))


def mask_to_crop(mask: np.ndarray) -> Crop:
    """The window of a (H, W) binary mask that holds all of its pixels."""
    return trim(Crop(0, 0, mask.astype(np.uint8)))


def trim(crop: Crop) -> Crop:
    """The smallest window of the same mask; an empty one has no pixels."""
    box = bounding_box(crop.mask)
    if box is None:
        return Crop(0, 0, np.zeros((0, 0), np.uint8))
    x0, y0, x1, y1 = box
    return Crop(crop.x0 + x0, crop.y0 + y0, crop.mask[y0:y1, x0:x1])


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A binary mask at another size: the pixels of which at least half is covered."""
    return resize(mask.astype(np.uint8) * 255, height, width) >= 128


def flip_image(image: np.ndarray) -> np.ndarray:
    """Mirror an image: left and right are exchanged."""
    return image[:, ::-1]


def flip_instances(instances: Instances, width: int) -> Instances:
    """Mirror the objects of an image that is ``width`` pixels wide, x -> width - x; rings keep their direction."""
    boxes = instances.boxes.copy()
    boxes[:, [0, 2]] = width - instances.boxes[:, [2, 0]]
    rings = [[_flip_ring(ring, width) for ring in rings] for rings in instances.rings]
    masks = [Crop(width - crop.x0 - crop.mask.shape[1], crop.y0, crop.mask[:, ::-1]) for crop in instances.masks]
    return Instances(boxes, instances.labels, rings, masks, instances.parts)


def _flip_ring(ring: np.ndarray, width: int) -> np.ndarray:
    return np.stack([np.float32(width) - ring[::-1, 0], ring[::-1, 1]], 1)


def cut_image(image: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """The part of an image inside a window: x0, y0, x1, y1 in whole pixels of it."""
    x0, y0, x1, y1 = window
    return image[y0:y1, x0:x1]


def cut_instances(instances: Instances, window: tuple[int, int, int, int]) -> Instances:
    """What a window (x0, y0, x1, y1 in whole pixels, inside the image) shows of the objects, in its own pixels.

    Outlines of objects that it cuts are those of the pixels that are left, so they run along its border.
    """
    x0, y0, x1, y1 = window
    boxes, rings, masks = instances.boxes - np.array([x0, y0, x0, y0], np.float32), [], []
    for k, crop in enumerate(instances.masks):
        height, width = crop.mask.shape
        left, top = max(crop.x0, x0), max(crop.y0, y0)
        right, bottom = min(crop.x0 + width, x1), min(crop.y0 + height, y1)
        part = crop.mask[top - crop.y0 : max(bottom, top) - crop.y0, left - crop.x0 : max(right, left) - crop.x0]
        left, top = left - x0, top - y0
        masks.append(trim(Crop(left, top, part)))
        if part.size and part.shape == crop.mask.shape:
            rings.append([ring - np.array([x0, y0], np.float32) for ring in instances.rings[k]])
        else:
            rings.append([ring + np.array([left, top], np.float32) for ring in trace_mask(part.astype(bool))])
    return Instances(boxes, instances.labels, rings, masks, instances.parts)


def window_around(
    box: np.ndarray, size: tuple[int, int], side: int, slack: tuple[float, float]
) -> tuple[int, int, int, int]:
    """A square of ``side`` pixels that holds a box where it fits, cut at the image: x0, y0, x1, y1 in whole pixels.

    Args:
        box: (4,) xyxy in pixels of the image.
        size: (height, width) of the image.
        side: of the square.
        slack: 0 to 1 along x and y: where in the square the box lies.
    """
    begin = []
    for axis in (0, 1):
        low, high = box[axis], box[axis + 2]
        free = side - (high - low)
        begin.append(round(float(low - free * slack[axis])))
    x0, y0 = (max(value, 0) for value in begin)
    x1, y1 = min(begin[0] + side, size[1]), min(begin[1] + side, size[0])
    return min(x0, size[1] - 1), min(y0, size[0] - 1), max(x1, x0 + 1), max(y1, y0 + 1)


def jitter_colours(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """An image (H, W, 3) uint8 RGB with brightness, contrast and saturation changed at random, gray now and then.

    Args:
        image: to be changed; stays as it is.
        strength: 0: nothing, 1: a lot.
        rng: what is random.
    """
    if rng.random() < 0.15 * strength:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    contrast, saturation = np.exp(rng.normal(0, 0.35 * strength, 2))
    brightness = rng.normal(0, 25 * strength)
    pixels = image.astype(np.float32)
    gray = pixels.mean(2, keepdims=True)
    pixels = (gray + (pixels - gray) * saturation - 128) * contrast + 128 + brightness
    return pixels.clip(0, 255).astype(np.uint8)


def drop_empty(instances: Instances, height: int, width: int) -> Instances:
    """Clip the boxes to the image and leave out the objects that have no box or no pixel there."""
    limit = np.array([width, height, width, height], np.float32)
    boxes = instances.boxes.clip(0, limit)
    sides = boxes[:, 2:] - boxes[:, :2]
    filled = np.array([crop.mask.any() for crop in instances.masks], bool)
    keep = np.flatnonzero((sides > MIN_BOX).all(1) & filled)
    return Instances(
        boxes[keep],
        instances.labels[keep],
        [instances.rings[k] for k in keep],
        [instances.masks[k] for k in keep],
        instances.parts[keep],
    )


def make_target(
    image_id: int, size: tuple[int, int], instances: Instances, builder: TargetBuilder | None, rng: np.random.Generator
) -> Target:
    """The training target of one image; with a builder also what that adds, but no "rings", which it has used."""
    import torch

    from sharpcontour.masks.packed import PackedMasks

    windows = [(crop.x0, crop.y0, crop.mask.shape[1], crop.mask.shape[0]) for crop in instances.masks]
    target: Target = {
        "image_id": image_id,
        "size": size,
        "boxes": torch.from_numpy(instances.boxes.astype(np.float32).reshape(-1, 4)),
        "labels": torch.from_numpy(instances.labels.astype(np.int64)),
        "masks": PackedMasks.from_crops([crop.mask for crop in instances.masks], np.array(windows, np.int64)),
        "polygon_parts": torch.from_numpy(instances.parts.astype(np.int64)),
        "rings": instances.rings,
    }
    if builder is None:
        return target
    target = builder(target, rng)
    target.pop("rings", None)
    return target
