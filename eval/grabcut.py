"""OpenCV's GrabCut in a band around each mask: what refines a mask without any training, to compare with."""

from __future__ import annotations

import cv2
import numpy as np

from sharpcontour.masks.box import bounding_box

BAND = 0.04  # of the square root of the box's area: how far on both sides of the outline pixels may change
ROUNDS = 3


def grabcut(image: np.ndarray, masks: list[np.ndarray]) -> list[np.ndarray]:
    """Refine K masks (H, W) bool on an image (H, W, 3) uint8 RGB by colour alone; outside of the band all stays.

    A mask without pixels that are surely inside and surely outside is returned as it is.
    """
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return [_grabcut(bgr, mask) for mask in masks]


def _grabcut(bgr: np.ndarray, mask: np.ndarray) -> np.ndarray:
    box = bounding_box(mask)
    if box is None:
        return mask
    x0, y0, x1, y1 = box
    reach = max(round(BAND * float(np.sqrt((y1 - y0 - 1) * (x1 - x0 - 1)))), 2)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    pixels = mask.astype(np.uint8)
    inner = cv2.erode(pixels, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    outer = cv2.dilate(pixels, kernel)
    labels = np.where(pixels > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[inner > 0], labels[outer == 0] = cv2.GC_FGD, cv2.GC_BGD
    if not inner.any() or outer.all():
        return mask
    # Only the surroundings are looked at: colours far away say nothing of this outline.
    around = np.s_[max(y0 - 3 * reach, 0) : y1 + 3 * reach, max(x0 - 3 * reach, 0) : x1 + 3 * reach]
    part = np.ascontiguousarray(bgr[around])
    found = np.ascontiguousarray(labels[around])
    if not (found == cv2.GC_BGD).any():
        return mask
    cv2.setRNGSeed(0)
    cv2.grabCut(part, found, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    refined = np.zeros_like(mask)
    refined[around] = (found == cv2.GC_FGD) | (found == cv2.GC_PR_FGD)
    return refined
