"""How far the pixels of a mask lie from its outline."""

from __future__ import annotations

import cv2
import numpy as np


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """The distance of every pixel's centre to the outline of a mask, in pixels; negative inside.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) float32; about -3e38 everywhere where the mask fills the image, and about 3e38 where it is
        empty, and so has no outline in it.
    """
    inside = mask.astype(np.uint8)
    # OpenCV measures to the nearest pixel of the other kind, whose centre lies half a pixel behind the outline.
    outwards, inwards = (cv2.distanceTransform(side, cv2.DIST_L2, 5) for side in (1 - inside, inside))
    return np.where(mask, 0.5 - inwards, outwards - 0.5)
