"""The box around the pixels of a mask."""

from __future__ import annotations

import numpy as np

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in whole pixels: the columns x0 to x1 - 1 and the rows y0 to y1 - 1."""


def bounding_box(mask: np.ndarray) -> Box | None:
    """The smallest box that holds all pixels of a mask (H, W) that are not zero; None where there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
