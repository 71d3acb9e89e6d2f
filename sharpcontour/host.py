"""What a host model hands over to the refiner (section 3.3), and which methods it must have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np

from sharpcontour.contours.lazy_masks import LazyMasks
from sharpcontour.contours.types import Contours, Rings
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError

if TYPE_CHECKING:  # data sets name these types, and are read without torch
    from torch import Tensor

    from sharpcontour.masks.packed import PackedMasks


class Target(TypedDict, total=False):
    """The training target of one image: K objects in network-input pixels.

    A data set makes all but the last two keys; a model's target builder adds what it needs beside these. An image that
    is only evaluated has "image_id", "size" and "original_size" alone.
    """

    image_id: int  # the data set's
    size: tuple[int, int]  # height and width of the image at network-input size, without padding
    original_size: tuple[int, int]  # only in evaluation: height and width as stored, which results are scaled to
    boxes: Tensor  # (K, 4) float32 xyxy, inside the image
    labels: Tensor  # (K,) int64 class index 0..C-1
    masks: PackedMasks  # the K masks
    rings: list[Rings]  # K outlines; gone when the target leaves the loader, builders have used them
    polygon_parts: Tensor  # (K,) int64, outer polygons that make up each object
    boundary: Tensor  # (K, S, 4) float32 of a refined model: x, y and the unit normal at S points of each outline
    given_boundary: Tensor  # (M, S, 4) float32: such points of the contours that a host was given for M instances


TargetBuilder = Callable[[Target, np.random.Generator], Target]
"""What a loader worker does to a training target once it is augmented: (target, random numbers) -> target with more."""


@dataclass
class RefinerInputs:
    """What a host gives the refiner, in training and at test time.

    Attributes:
        fine: (B, C, H/s, W/s), the highest-resolution feature map.
        stride: s, in network-input pixels.
        boxes: (K, 4) xyxy in network-input pixels, detached: positives in training, detections at test time.
        image_index: (K,) int64, the image of the batch each instance lies on.
        feats: (K, C', h, w), what the controller reads: RoI features, or the 3x3 neighbourhood of a location.
        image_sizes: (height, width) of each image before padding.
        target_index: training only, (K,) int64: the ground-truth object of each instance, counted through the
            concatenated targets of the batch.
        contours: test time only, the initial contours: a contour host gives its own, for others they are traced.
        soft_masks: test time only, of a mask host: what initial contours are traced from.
        context: (B, C'', h, w), a coarser map that makes up for what ``fine`` lacks; not every host has one.
        windows: (K, 4) xyxy in network-input pixels, where every instance has a map of its own: then B is K, and
            ``boxes``, ``contours`` and ``image_sizes`` are in pixels of the windows, see :meth:`own`.
        distance: (K, 1, h, w), the signed distance to the given contour over the same extent as ``fine``, negative
            inside; of hosts that are given contours.
        images: (3, H, W) uint8 or float32, 0 to 255, each without padding, for refiners that look at the instances once
            more; :class:`~sharpcontour.refined_model.RefinedModel` adds them at test time, no host needs to.
    """

    fine: Tensor
    stride: int
    boxes: Tensor
    image_index: Tensor
    feats: Tensor
    image_sizes: list[tuple[int, int]]
    target_index: Tensor | None = None
    contours: Contours | None = None
    soft_masks: LazyMasks | None = None
    context: Tensor | None = None
    windows: Tensor | None = None
    distance: Tensor | None = None
    images: list[Tensor] | None = None

    def check(self, host: Host) -> None:
        """See that shapes and types fit one another and what the host says of itself; no value is looked at.

        Raises:
            InputError: naming the host and the field that does not.
        """
        count, anything = len(self.boxes), "any"
        shapes = {
            "fine": (anything, host.fine_channels, anything, anything),
            "boxes": (count, 4),
            "image_index": (count,),
            "target_index": (count,),
            "feats": (count, *host.controller_shape),
        }
        if self.context is not None:
            shapes["context"] = (anything, host.context_channels, anything, anything)
        for name, shape in shapes.items():
            found = getattr(self, name)
            if found is None:
                continue
            if found.dim() != len(shape) or any(
                a not in (anything, b) for a, b in zip(shape, found.shape, strict=True)
            ):
                wanted = ", ".join(map(str, shape))
                raise InputError(f"{type(host).__name__} gave {name} of the shape {tuple(found.shape)}, not ({wanted})")
            if name.endswith("index") and str(found.dtype) != "torch.int64":
                raise InputError(f"{type(host).__name__} gave {name} as {found.dtype}, not torch.int64")
        if self.contours is not None and str(self.contours.vertices.dtype) != "torch.float32":
            raise InputError(
                f"{type(host).__name__} gave contours as {self.contours.vertices.dtype}, not torch.float32"
            )

    def maps(self) -> list[Tensor]:
        """The feature maps: ``fine``, and ``context`` where there is one."""
        return [self.fine] if self.context is None else [self.fine, self.context]

    def areas(self) -> Tensor:
        """(K,) A of section 3.1, the area of each instance's box in square pixels."""
        return (self.boxes[:, 2:] - self.boxes[:, :2]).clamp(min=0).prod(1)

    def select(self, chosen: Tensor) -> RefinerInputs:
        """These of some instances, ``chosen`` (K',) int64, in that order and without soft masks.

        One may come several times. The feature maps stay as they are.
        """

        def of(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[chosen]

        return replace(
            self,
            boxes=self.boxes[chosen],
            image_index=self.image_index[chosen],
            feats=self.feats[chosen],
            target_index=of(self.target_index),
            contours=None if self.contours is None else self.contours.select(chosen),
            soft_masks=None,
            windows=of(self.windows),
            distance=of(self.distance),
        )

    def own(self, points: Tensor) -> Tensor:
        """Points (K, Q, 2) in network-input pixels as the instances' own maps count them: pixels of the windows."""
        if self.windows is None:
            return points
        side = self.fine.shape[3] * self.stride
        return (points - self.windows[:, None, :2]) * (side / (self.windows[:, 2:] - self.windows[:, :2]))[:, None]


class Host(Protocol):
    """An instance segmentation model that can be refined; an nn.Module.

    Attributes:
        fine_channels: C of ``RefinerInputs.fine``.
        context_channels: C'' of ``RefinerInputs.context``, 0 without.
        controller_shape: (C', h, w) of ``RefinerInputs.feats``.
        target_builder: what loader workers add to its targets; picklable.
    """

    fine_channels: int
    context_channels: int
    controller_shape: tuple[int, int, int]

    @property
    def target_builder(self) -> TargetBuilder: ...

    def losses(self, images: list[Tensor], targets: Sequence[Target]) -> tuple[dict[str, Tensor], RefinerInputs]:
        """Weighted losses by name, and what the refiner needs of the training instances.

        What is learned from has a name that begins with "loss"; other scalars are for the log.
        """

    def training_instances(self, images: list[Tensor], targets: Sequence[Target]) -> RefinerInputs:
        """What the refiner needs of the training instances, without any loss: for training the refiner alone."""

    def detect(self, images: list[Tensor]) -> tuple[list[Detections], RefinerInputs]:
        """One Detections an image, in pixels of the given images, and the same instances for the refiner, in order."""

    def encode(self, images: list[Tensor]) -> Any:
        """What :meth:`describe` needs of the images, whatever the instances: made once, used as often as wanted."""

    def describe(self, encoded: Any, boxes: list[Tensor]) -> RefinerInputs:
        """What the refiner needs of instances from anywhere, without contours; they may come in parts.

        Args:
            encoded: from :meth:`encode`.
            boxes: (K_i, 4) float32 xyxy of each image, in its pixels and inside it, every side one long at least.
        """


def at_least_one_pixel(boxes: Tensor, limits: Tensor) -> Tensor:
    """Boxes (K, 4) cut at their image's border, every side one pixel long at least: what :meth:`Host.describe` takes.

    Args:
        boxes: (K, 4) xyxy in pixels of their images.
        limits: (K, 4) or (1, 4) width, height, width, height of these.
    """
    import torch

    low = boxes[:, :2].clamp(min=0).minimum(limits[:, :2] - 1)
    high = boxes[:, 2:].minimum(limits[:, 2:]).maximum(low + 1)
    return torch.cat([low, high], 1)
