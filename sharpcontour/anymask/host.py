"""The host that detects nothing: it is given masks, and looks at each of them in its window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharpcontour.anymask.network import (
    CELLS,
    SIDE,
    STRIDE,
    AnyMaskConfig,
    ImageNetwork,
    WindowNetwork,
    cell_centres,
    window_features,
)
from sharpcontour.errors import InputError
from sharpcontour.host import RefinerInputs, Target
from sharpcontour.masks.packed import PackedMasks

SIZE_DIVISIBILITY = 32  # px, sides of a batch of views


class MaskTarget(Target, total=False):
    """A training target with M masks as somebody might give them, worse versions of the objects' own."""

    given_object: Tensor  # (M,) int64, the object that each mask means, of this image
    given_boxes: Tensor  # (M, 4) float32 xyxy around the masks
    given_windows: Tensor  # (M, 4) float32 xyxy, their windows
    given_distance: Tensor  # (M, 128, 128) float16, signed distances to the masks in their windows


@dataclass
class Windows:
    """K given masks on encoded views.

    Attributes:
        view: (K,) int64, the view that each is looked at on.
        windows: (K, 4) float32 xyxy in pixels of the views.
        boxes: (K, 4) float32 xyxy around the masks, in pixels of the windows.
        distance: (K, 128, 128), from :func:`sharpcontour.anymask.windows.distance_maps`.
    """

    view: Tensor
    windows: Tensor
    boxes: Tensor
    distance: Tensor


class MaskHost(nn.Module):
    """Image network, window network, and an auxiliary mask that makes both learn faster.

    Args:
        config: all choices.
        num_classes: not needed: masks of any class are refined alike.
    """

    context_channels = 0
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: AnyMaskConfig, num_classes: int = 1) -> None:
        super().__init__()
        self.config = config
        self.image, self.window = ImageNetwork(config), WindowNetwork(config)
        self.mask_logits = nn.Conv2d(config.window[0], 1, 1)
        self.fine_channels = config.window[0]
        self.controller_shape = (config.window[2], CELLS // 4, CELLS // 4)
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)  # convolutions on CPUs are up to twice as fast

    def encode(self, images: Sequence[Tensor]) -> Tensor:
        """Features (B, C, H/4, W/4) of views (3, h, w), RGB, 0 to 255, padded to one size with zeros."""
        d = SIZE_DIVISIBILITY
        height, width = (-(-max(image.shape[axis] for image in images) // d) * d for axis in (1, 2))
        padded = self.pixel_mean.new_zeros(len(images), 3, height, width)
        for slot, image in zip(padded, images, strict=True):
            slot[:, : image.shape[1], : image.shape[2]] = self.normalised(image.to(padded.device, non_blocking=True))
        return self.image(padded.contiguous(memory_format=torch.channels_last))

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels (..., 3, h, w), RGB, 0 to 255, as the image network takes them."""
        return (pixels.float() - self.pixel_mean) / self.pixel_std

    def look(self, features: Tensor, given: Windows) -> RefinerInputs:
        """What the refiner needs of K given masks, in pixels of their windows; no contours yet."""
        return replace(self.seen(features, given), image_sizes=[(SIDE, SIDE)] * len(given.view))

    def seen(self, features: Tensor, given: Windows) -> RefinerInputs:
        """:meth:`look` without ``image_sizes``: a graph has no lists whose length may be any."""
        distance = given.distance[:, None].float()
        fine, coarse = self.window(window_features(features, given.view, given.windows), distance)
        return RefinerInputs(
            fine=fine,
            stride=STRIDE,
            boxes=given.boxes,
            image_index=torch.arange(given.view.shape[0], device=given.view.device),
            feats=coarse,
            image_sizes=[],
            windows=given.windows,
            distance=distance,
        )

    def losses(self, images: list[Tensor], targets: Sequence[Target]) -> tuple[dict[str, Tensor], RefinerInputs]:
        """The auxiliary mask loss, and the given masks as instances for the refiner."""
        inputs = self.training_instances(images, targets)
        logits = self.mask_logits(inputs.fine).float()[:, 0]
        if len(logits) == 0:  # touches every parameter: no process may wait for this one's gradients
            nothing = torch.stack([p.float().sum() for p in self.parameters()]).sum() + logits.sum()
            return {"loss_mask": 0.0 * nothing}, inputs
        loss = F.binary_cross_entropy_with_logits(logits, self._wanted(inputs, targets))
        return {"loss_mask": self.config.mask_weight * loss}, inputs

    def training_instances(self, images: list[Tensor], targets: Sequence[Target]) -> RefinerInputs:
        """The given masks of all images as instances for the refiner, without any loss."""
        own = cast(Sequence[MaskTarget], targets)
        counts = torch.tensor([len(target["given_object"]) for target in own])
        objects = torch.tensor([0, *(len(target["boxes"]) for target in own)]).cumsum(0)[:-1]
        device = self.pixel_mean.device
        view = torch.arange(len(own)).repeat_interleave(counts).to(device, non_blocking=True)
        windows = torch.cat([target["given_windows"] for target in own])
        boxes = torch.cat([target["given_boxes"] for target in own])
        scale = SIDE / (windows[:, 2:3] - windows[:, :1])
        boxes = (boxes - windows[:, :2].repeat(1, 2)) * scale
        distance = torch.cat([target["given_distance"].float() for target in own])
        inputs = self.look(self.encode(images), Windows(view, windows, boxes, distance))
        inputs.target_index = torch.cat([t["given_object"] for t in own]) + objects.to(device, non_blocking=True)[view]
        return inputs

    def _wanted(self, inputs: RefinerInputs, targets: Sequence[Target]) -> Tensor:
        """1 where the centre of a window's cell lies on the object, else 0: (K, 64, 64)."""
        assert inputs.windows is not None and inputs.target_index is not None
        masks = PackedMasks.cat([target["masks"] for target in targets])
        inside = masks.inside(inputs.target_index, cell_centres(inputs.windows))
        return inside.float().unflatten(1, (CELLS, CELLS))

    def detect(self, images: list[Tensor]) -> Any:
        """Raise InputError: this host finds no objects by itself."""
        raise InputError("anymask detects nothing; give it masks: scripts/refine.py, or Predictor.refine(image, masks)")

    def describe(self, encoded: Any, boxes: list[Tensor]) -> RefinerInputs:
        """Raise InputError: this host needs masks, for boxes do not tell which is meant."""
        raise InputError("anymask looks at masks, not at boxes; see sharpcontour.anymask.in_windows")
