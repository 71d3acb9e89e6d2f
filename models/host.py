"""What every host model is: a detector with masks or contours, which the refiner can stand behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from models.backbone import BackboneConfig
from sharpcontour.contours.lazy_masks import LazyMasks
from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.host import RefinerInputs, Target, TargetBuilder
from sharpcontour.io.device import to_cpu


class HostBase(nn.Module):
    """Base of the host models: puts images into a batch and tells training from prediction.

    Images are tensors (3, H, W), RGB, values 0 to 255 (uint8, or float32), at network-input size, on any device. All
    coordinates, in and out, are pixels of these images.

    A model of one's own sets ``title`` and ``config_type`` and overrides ``small`` and the methods that raise
    NotImplementedError here; see ``docs/extending.md``.

    Attributes:
        title: how it is written in pictures and tables.
        config_type: dataclass of its configuration, which has a ``backbone`` where the model finds objects.
        base_lr: learning rate at 16 images of the recipes for COCO, as published.
        finds: whether it detects objects; off: it must be given masks.
        keep_empty: whether the recipes for COCO also train on images without objects, as published.
        config: the configuration it was made with; it, ``fine_channels`` and ``controller_shape`` are set by the
            ``__init__`` of a model of one's own.
        fine_channels: channels of the highest-resolution feature map handed to the refiner.
        context_channels: of the coarser map that comes along; 0: none does.
        controller_shape: (C, h, w) of the instance features handed to the refiner.
    """

    title: ClassVar[str]
    config_type: ClassVar[type[Any]]
    base_lr: ClassVar[float] = 0.01
    finds: ClassVar[bool] = True
    keep_empty: ClassVar[bool] = True
    size_divisibility = 32
    config: Any
    fine_channels: int
    context_channels: int = 0
    controller_shape: tuple[int, int, int]
    pixel_mean: Tensor
    pixel_std: Tensor

    @staticmethod
    def small() -> Any:
        """The host's configuration for the built-in shapes: small images, minutes on two CPU cores."""
        raise NotImplementedError

    def __init__(self, backbone: BackboneConfig) -> None:
        super().__init__()
        self._reverse_channels = backbone.channel_order == "bgr"
        self._pixel_scale = 255 / backbone.pixel_range
        self.register_buffer("pixel_mean", torch.tensor(backbone.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(backbone.pixel_std).view(3, 1, 1), persistent=False)

    @property
    def target_builder(self) -> TargetBuilder:
        """What a loader worker adds to every training target after augmentation, picklable. By default nothing."""
        return _nothing_more

    def losses(self, images: list[Tensor], targets: Sequence[Target]) -> tuple[dict[str, Tensor], RefinerInputs]:
        """The weighted losses by names that begin with "loss", and the training instances for the refiner."""
        raise NotImplementedError

    def training_instances(self, images: list[Tensor], targets: Sequence[Target]) -> RefinerInputs:
        """The training instances for the refiner, without any loss: for training the refiner alone."""
        raise NotImplementedError

    def detect(self, images: list[Tensor]) -> tuple[list[Detections], RefinerInputs]:
        """One :class:`Detections` an image (CPU), and the same instances for the refiner, in the same order."""
        raise NotImplementedError

    def encode(self, images: list[Tensor]) -> Any:
        """What :meth:`describe` needs of the images, whatever the instances: made once, used as often as wanted."""
        raise NotImplementedError

    def describe(self, encoded: Any, boxes: list[Tensor]) -> RefinerInputs:
        """What the refiner needs of instances that the host did not find: boxes (K_i, 4) of each image. No contours."""
        raise NotImplementedError

    def forward(self, images: list[Tensor], targets: Sequence[Target] | None = None) -> Any:
        """With targets the losses by name (training), without them one :class:`Detections` an image."""
        return self.detect(images)[0] if targets is None else self.losses(images, targets)[0]

    def batch(self, images: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Normalised images (B, 3, H, W), padded with zeros, and (height, width) of each without the padding."""
        sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        d = self.size_divisibility
        height, width = (-(-max(side) // d) * d for side in zip(*sizes, strict=True))
        padded = self.pixel_mean.new_zeros(len(images), 3, height, width)
        for slot, image, (h, w) in zip(padded, images, sizes, strict=True):
            pixels = image.to(padded.device, non_blocking=True).float()
            if self._reverse_channels:
                pixels = pixels.flip(0)
            slot[:, :h, :w] = (pixels / self._pixel_scale - self.pixel_mean) / self.pixel_std
        return padded, sizes


def missing_parts(host: type[HostBase]) -> list[str]:
    """The names of the parts that a host class must define and does not."""
    lacking = [name for name in ("title", "config_type") if not hasattr(host, name)]
    config_type = getattr(host, "config_type", None)
    if config_type is not None and not is_dataclass(config_type):
        lacking.append("config_type that is a dataclass")
    elif host.finds and config_type is not None and "backbone" not in {one.name for one in fields(config_type)}:
        lacking.append("config_type.backbone")  # loading a checkpoint would fetch the weights of one by another name
    methods = ("small", "losses", "training_instances", "detect", "encode", "describe")
    return lacking + [f"{name}()" for name in methods if getattr(host, name) is getattr(HostBase, name)]


def _nothing_more(target: Target, rng: np.random.Generator) -> Target:
    return target


def image_indices(counts: list[int], device: torch.device) -> Tensor:
    """(sum of counts,) int64: 0 for the instances of the first image (or level), 1 for the second's, and so on."""
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return index.to(device, non_blocking=True)


def per_image(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    shapes: list[Rings] | LazyMasks,
    counts: list[int],
    sizes: list[tuple[int, int]],
) -> list[Detections]:
    """K instances of a batch, image after image -> the Detections of each image, on the CPU.

    Args:
        boxes, scores, labels, shapes: of all K instances, see :class:`Detections`.
        counts: instances of each image.
        sizes: (height, width) of each image.
    """
    parts = [part.split(counts) for part in to_cpu(boxes, scores, labels)]
    detections, begin = [], 0
    for box, score, label, size in zip(*parts, sizes, strict=True):
        detections.append(Detections(box, score, label, shapes[begin : begin + len(score)], size))
        begin += len(score)
    return detections
