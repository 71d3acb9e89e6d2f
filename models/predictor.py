"""A trained model as a user sees it: an image of any size in, detections in its pixels out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from data.transforms import Resize, resize_image, to_tensor
from sharpcontour.anymask.by_boxes import refine_by_boxes
from sharpcontour.anymask.in_windows import refine_in_windows
from sharpcontour.anymask.refiner import as_pixels, read_given
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.refined_model import RefinedModel


class Predictor:
    """A trained model in evaluation mode, with what it needs to read images of any size.

    Args:
        model: a host, with or without the refiner, on its device.
        categories: {"id", "name"} of every class, in the order of the class indices.
        short_side: network-input pixels that the shorter side of an image is resized to.
        max_side: network-input pixels that the longer side may have at most.
        resize: how; see :func:`data.transforms.resize_image`.
        config: of the training run, in plain form.

    Attributes:
        class_names: of class index 0, 1, ...
        category_ids: the data set's ids of the same classes.
        finds: whether the model detects objects by itself; AnyMask must be given masks.
    """

    def __init__(
        self,
        model: nn.Module,
        categories: Sequence[Mapping[str, Any]],
        short_side: int,
        max_side: int,
        resize: Resize = "opencv",
        config: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.config = model.eval(), config or {}
        self.class_names = [str(category["name"]) for category in categories]
        self.category_ids = [int(category["id"]) for category in categories]
        self.short_side, self.max_side, self.resize = short_side, max_side, resize
        self.finds = bool(getattr(getattr(model, "host", model), "finds", True))

    def resized(self, image: np.ndarray) -> Tensor:
        """The image (H, W, 3) at network-input size: (3, h, w), uint8 or float32."""
        return to_tensor(resize_image(image, self.short_side, self.max_side, self.resize))

    def predict(self, image: Any, trace: bool = False) -> Detections:
        """Detections in the pixels of ``image``; ``coarse`` set where a refiner ran.

        Args:
            image: a path, whose photograph is turned upright as its EXIF data say, a PIL image, or an array: (H, W, 3)
                RGB, (H, W, 4) RGBA or (H, W) gray, of uint8 or uint16.
            trace: also keep the contours of every evolution iteration in ``steps``.

        Raises:
            InputError: for an image that cannot be read.
        """
        pixels = as_pixels(image)
        height, width = pixels.shape[:2]
        images = [self.resized(pixels)]
        self.model.eval()  # a module that holds this one may have been set to training since
        with torch.no_grad():  # no inference_mode: what comes out may be used in somebody's training
            if trace and isinstance(self.model, RefinedModel):
                found = self.model.detect(images, trace=True)
            else:
                found = self.model(images)
        return found[0].scaled_to((height, width))

    def refine(
        self,
        image: Any,
        masks: Any,
        boxes: Any = None,
        *,
        scores: ArrayLike | None = None,
        labels: ArrayLike | None = None,
    ) -> Detections:
        """Refine instances that come from anywhere: another model's, or drawn by hand.

        Args:
            image: a path, a PIL image, or an array, as of :meth:`sharpcontour.MaskRefiner.refine`.
            masks: (K, H, W) bool, a list of K masks, COCO RLEs or lists of COCO polygons, or a file of masks; see
                :func:`sharpcontour.anymask.foreign_masks.read_masks`.
            boxes: (K, 4) xyxy in pixels of the image: of the detections; with None, or None in the place of a row, the
                box of the mask. They are cut off at the image, and a pixel large at least. AnyMask goes by the masks.
            scores: (K,), only handed on; without them 1.
            labels: (K,) integers, only handed on; without them 0.

        Returns:
            The same K instances in the same order, in pixels of the image; ``coarse`` as they were given. One that is
            empty, too small, or would get worse, and with AnyMask one in which nothing moves, keeps exactly its
            pixels; then ``rings[k] is coarse.rings[k]``.

        Raises:
            InputError: if the model has no refiner, for an image that cannot be read, for masks and boxes that are
                broken or do not fit it, and for scores and labels that are not K numbers.
        """
        if not isinstance(self.model, RefinedModel):
            raise InputError("this checkpoint has no refiner; train with --refine")
        self.model.eval()
        pixels, given, coarse = read_given(image, masks, boxes, scores, labels)
        if self.finds:
            shapes = refine_by_boxes(self.model, self.resized(pixels), given, coarse.boxes, coarse.size)
        else:
            shapes = refine_in_windows(self.model, pixels, given)
        return coarse.refined(shapes)
