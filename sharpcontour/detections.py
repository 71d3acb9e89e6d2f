"""The result of a model on one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from sharpcontour.contours.lazy_masks import LazyMasks
from sharpcontour.contours.rasterize import rings_to_rles
from sharpcontour.contours.types import Rings
from sharpcontour.errors import InputError
from sharpcontour.masks.run_lengths import RLE, rles_to_masks

if TYPE_CHECKING:
    from torch import Tensor


class CocoResult(TypedDict):
    """A detection as an entry of a COCO results file."""

    image_id: int
    category_id: int
    bbox: list[float]  # x, y, width, height in pixels of the image
    score: float
    segmentation: RLE


@dataclass(repr=False, eq=False)
class Detections:
    """K instances on one image: a model's best score first, given ones in the order in which they were given.

    Attributes:
        boxes: (K, 4) float32 xyxy, continuous pixels of ``size``.
        scores: (K,) float32.
        labels: (K,) int64, class index 0..C-1.
        shapes: K objects in pixels of ``size``: each a list of (n, 2) rings (even-odd, holes included), float32 but for
            polygons as they were given, which may be float64; or all as soft masks, which become pixels only where they
            are asked for, at the size asked for.
        size: (height, width) of the image the coordinates refer to.
        coarse: the same instances before refinement, where a refiner ran.
        steps: on request, the rings after every evolution iteration; ``steps[0]`` is where the evolution began.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    shapes: list[Rings] | LazyMasks
    size: tuple[int, int]
    coarse: Detections | None = None
    steps: list[list[Rings]] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        best = f", best score {float(self.scores.max()):.2f}" if len(self) else ""
        refined = "" if self.coarse is None else ", refined"
        return f"Detections({len(self)} on {self.size[1]} x {self.size[0]} pixels{best}{refined})"

    @cached_property
    def rings(self) -> list[Rings]:
        """Return the K objects as rings; of soft masks these are the outlines of their pixels on the image."""
        return self.shapes.rings(*self.size) if isinstance(self.shapes, LazyMasks) else self.shapes

    def rles(self) -> list[RLE]:
        """K compressed COCO RLEs of ``size``; an instance without rings has an empty mask."""
        return [rle.copy() for rle in self._rles]

    @cached_property
    def _rles(self) -> list[RLE]:
        return (
            self.shapes.rles(*self.size)
            if isinstance(self.shapes, LazyMasks)
            else rings_to_rles(self.rings, *self.size)
        )

    def masks(self) -> np.ndarray:
        """Return the masks of the K instances on the image, (K, height, width) bool."""
        return rles_to_masks(self.rles(), *self.size)

    def scaled_to(self, size: tuple[int, int]) -> Detections:
        """These detections on an image of another (height, width); boxes are clipped to it."""
        sy, sx = size[0] / self.size[0], size[1] / self.size[1]
        boxes = self.boxes * self.boxes.new_tensor([sx, sy, sx, sy])
        boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([size[1], size[0], size[1], size[0]]))
        scale = np.array([sx, sy], np.float32)
        shapes = self.shapes
        shapes = shapes.scaled(sx, sy, *size) if isinstance(shapes, LazyMasks) else _scaled(shapes, scale)
        coarse = None if self.coarse is None else self.coarse.scaled_to(size)
        steps = None if self.steps is None else [_scaled(objects, scale) for objects in self.steps]
        return replace(self, boxes=boxes, shapes=shapes, size=size, coarse=coarse, steps=steps)

    def refined(self, shapes: list[Rings], steps: list[list[Rings]] | None = None) -> Detections:
        """The same instances with other shapes, ``coarse`` being these; boxes, scores and labels are copies."""
        return Detections(
            self.boxes.clone(), self.scores.clone(), self.labels.clone(), shapes, self.size, coarse=self, steps=steps
        )

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[CocoResult]:
        """COCO result entries.

        Args:
            image_id: of the image.
            category_ids: the data set's ids of class indices 0, 1, ...; None or none at all: labels are ids.

        Raises:
            InputError: where a label has no category.
        """
        boxes, scores, labels = self.boxes.tolist(), self.scores.tolist(), self.labels.tolist()
        if category_ids is not None and len(category_ids):
            odd = [label for label in labels if not 0 <= label < len(category_ids)]
            if odd:
                raise InputError(
                    f"label {odd[0]} has no category: category_ids are of classes 0 to {len(category_ids) - 1}"
                )
            labels = [int(category_ids[label]) for label in labels]
        return [
            {
                "image_id": image_id.item() if isinstance(image_id, np.integer) else image_id,
                "category_id": label,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
                "segmentation": rle,
            }
            for (x0, y0, x1, y1), score, label, rle in zip(boxes, scores, labels, self.rles(), strict=True)
        ]


def _scaled(objects: list[Rings], scale: np.ndarray) -> list[Rings]:
    return [[ring * scale for ring in rings] for rings in objects]
