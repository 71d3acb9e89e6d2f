"""Reading image files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sharpcontour.errors import InputError


def read_image(path: str | Path, upright: bool = False) -> np.ndarray:
    """Any image file as (H, W, 3) uint8 RGB: grey is repeated, alpha dropped, 16 bits are reduced.

    Args:
        path: of the file.
        upright: turn a photograph as its EXIF data say; annotations of data sets refer to the pixels as stored.

    Raises:
        InputError: if it is missing, no image, or cut short.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(data, flags) if len(data) else None
    except cv2.error:
        image = None
    if image is None:
        kind = "is empty" if len(data) == 0 else "is no image, or cut short"
        raise InputError(f"{path}: the file {kind}; replace it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
