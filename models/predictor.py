"""A trained model as a user sees it: an image of any size in, detections in its pixels out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from data.transforms import resize, test_size, to_tensor
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.refiner import RefinedModel


class Predictor:
    """A model in evaluation mode.

    Args:
        model: a host, with or without the refiner, on its device.
        categories: {"id", "name"} of every class, in the order of the class indices.
        short_side: network-input pixels that the shorter side of an image is resized to.
        max_side: network-input pixels that the longer side may have at most.
        config: of the training run, in plain form.

    Attributes:
        class_names: of class index 0, 1, ...
        category_ids: the data set's ids of the same classes.
    """

    def __init__(
        self,
        model: nn.Module,
        categories: Sequence[dict[str, Any]],
        short_side: int,
        max_side: int,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.config = model.eval(), config or {}
        self.class_names = [str(category["name"]) for category in categories]
        self.category_ids = [int(category["id"]) for category in categories]
        self.short_side, self.max_side = short_side, max_side

    @torch.inference_mode()
    def predict(self, image: np.ndarray, trace: bool = False) -> Detections:
        """Detections in the pixels of ``image``, (H, W, 3) uint8 RGB; ``coarse`` set where a refiner ran.

        Args:
            image: to look at.
            trace: also keep the contours of every evolution iteration in ``steps``.

        Raises:
            InputError: for an array of another type or shape.
        """
        check_image(image)
        height, width = image.shape[:2]
        resized = resize(image, *test_size(height, width, self.short_side, self.max_side))
        images = [to_tensor(resized)]
        if trace and isinstance(self.model, RefinedModel):
            found = self.model.detect(images, trace=True)
        else:
            found = self.model(images)
        return found[0].scaled_to((height, width))


def check_image(image: np.ndarray) -> None:
    """Raise InputError unless ``image`` is (H, W, 3) uint8 with at least one pixel."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"an image must be a numpy array of uint8, 0 to 255; this one is {kind}")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(f"an image must have the shape (height, width, 3), RGB; this one has {image.shape}")
