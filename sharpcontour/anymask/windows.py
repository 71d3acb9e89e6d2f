"""Windows around masks, and how far their points lie from the given outline.

Shapes: K masks. A window is a square around a mask's box; in window pixels it spans [0, SIDE] along both axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from sharpcontour.anymask.network import DISTANCE_CELLS, SIDE
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.contours.types import Rings
from sharpcontour.masks.distance import signed_distance

MARGIN = 0.15  # of the longer side of a box, on each side of it
UNIT = 0.05  # of the square root of the box's area: the unit of distances
LIMIT = 3.0  # units; farther is as far as this


def windows_around(boxes: np.ndarray, margin: np.ndarray | float = MARGIN) -> np.ndarray:
    """(K, 4) xyxy squares around boxes (K, 4), in the same pixels; they may leave the image."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True) * (0.5 + np.asarray(margin).reshape(-1, 1))
    half = np.maximum(half, 4.0)
    return np.concatenate([centre - half, centre + half], 1)


def to_window(points: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Points (n, 2) of the image in pixels of a window (4,) xyxy."""
    return (points - window[:2]) * (SIDE / (window[2:] - window[:2]))


def distance_map(rings: Rings, area: float) -> np.ndarray:
    """How far the cells of a window lie from an outline: in [-1, 1], negative inside, 0 on it.

    Args:
        rings: of the object, in window pixels.
        area: of its box in square window pixels.

    Returns:
        (128, 128) float16; 1 stands for :data:`LIMIT` x :data:`UNIT` x the square root of the area, and for more.
    """
    mask = rings_to_masks([rings], SIDE, SIDE)[0]
    if not mask.any():
        return np.ones((DISTANCE_CELLS, DISTANCE_CELLS), np.float16)
    cells = cv2.resize(signed_distance(mask), (DISTANCE_CELLS, DISTANCE_CELLS), interpolation=cv2.INTER_AREA)
    return np.clip(cells / (LIMIT * UNIT * max(area, 1.0) ** 0.5), -1, 1).astype(np.float16)


def distance_maps(objects: Sequence[Rings], windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The :func:`distance_map` of K objects in pixels of an image: (K, 128, 128) float16.

    Args:
        objects: K lists of rings.
        windows: (K, 4) xyxy in pixels of the image.
        boxes: (K, 4) xyxy around the objects, in pixels of the image.
    """
    maps = np.empty((len(objects), DISTANCE_CELLS, DISTANCE_CELLS), np.float16)
    for k, (rings, window, box) in enumerate(zip(objects, windows, boxes, strict=True)):
        scale = SIDE / (window[2] - window[0])
        area = float((box[2] - box[0]) * (box[3] - box[1]) * scale**2)
        maps[k] = distance_map([to_window(ring, window) for ring in rings], area)
    return maps
