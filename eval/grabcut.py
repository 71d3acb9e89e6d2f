"""OpenCV's GrabCut in a band around each mask: what refines a mask without any training, to compare with."""

from __future__ import annotations

import cv2
import numpy as np

BAND = 0.04  # of the square root of the box's area: how far on both sides of the outline pixels may change
ROUNDS = 3


def grabcut(image: np.ndarray, masks: list[np.ndarray]) -> list[np.ndarray]:
    """Refine K masks (H, W) bool on an image (H, W, 3) uint8 RGB by colour alone; outside of the band all stays.

    A mask without pixels that are surely inside and surely outside is returned as it is.
    """
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return [_grabcut(bgr, mask) for mask in masks]


def _grabcut(bgr: np.ndarray, mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return mask
    reach = max(round(BAND * float(np.sqrt(np.ptp(rows) * np.ptp(columns)))), 2)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    pixels = mask.astype(np.uint8)
    inner = cv2.erode(pixels, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    outer = cv2.dilate(pixels, kernel)
    labels = np.where(pixels > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[inner > 0], labels[outer == 0] = cv2.GC_FGD, cv2.GC_BGD
    if not inner.any() or outer.all():
        return mask
    # Only the surroundings are looked at: colours far away say nothing of this outline.
    y0, y1 = max(rows[0] - 3 * reach, 0), rows[-1] + 3 * reach + 1
    x0, x1 = max(columns[0] - 3 * reach, 0), columns[-1] + 3 * reach + 1
    part = np.ascontiguousarray(bgr[y0:y1, x0:x1])
    found = np.ascontiguousarray(labels[y0:y1, x0:x1])
    if not (found == cv2.GC_BGD).any():
        return mask
    cv2.setRNGSeed(0)
    cv2.grabCut(part, found, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    refined = np.zeros_like(mask)
    refined[y0:y1, x0:x1] = (found == cv2.GC_FGD) | (found == cv2.GC_PR_FGD)
    return refined
