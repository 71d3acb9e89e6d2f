"""RefineMask's networks: the semantic head on P2, and the stages that carry a RoI from 14 x 14 to 112 x 112 cells.

Shapes: B images, R RoIs, C classes, S cells along a side of a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from models.two_stage.roi import logits_of_class, roi_conv


@dataclass
class RefineHeadConfig:
    """Settings of the mask branch; the defaults are the published ones."""

    instance_convs: int = 2  # 3x3, on RoI features
    semantic_convs: int = 4  # 3x3, on P2
    channels: int = 256  # of both, and of the first stage; each later one has half as many
    resolution: int = 14  # cells along a side of a RoI; three stages double them
    dilations: tuple[int, ...] = (1, 3, 5)  # of a stage's parallel 3x3 convolutions
    stage_weights: tuple[float, float, float, float] = (0.25, 0.5, 0.75, 1.0)  # of the four mask losses
    learn_width: int = 2  # cells on both sides of a boundary that learn in the two finest stages
    compose_width: int = 1  # cells on both sides of a boundary that are taken from the finer stage


@dataclass
class Semantic:
    """What the semantic head says of whole images, from P2.

    Attributes:
        features: (B, channels, H/4, W/4).
        logits: (B, 1, H/4, W/4) float32, whether any object is there.
    """

    features: Tensor
    logits: Tensor


class RefineHead(nn.Module):
    """RefineMask's mask branch: the semantic head and the stages of masks.

    Args:
        config: all choices.
        channels: of the pyramid.
        num_classes: C.
        stride: of P2, network-input pixels.
    """

    def __init__(self, config: RefineHeadConfig, channels: int, num_classes: int, stride: int) -> None:
        super().__init__()
        width = config.channels
        self.convs = _convs(channels, width, config.instance_convs)
        self.semantic_convs = _convs(channels, width, config.semantic_convs)
        self.semantic_logits = _conv1x1(width, 1)
        widths = [width // 2**k for k in range(3)]
        self.stages = nn.ModuleList(Stage(config, width, w, num_classes, stride) for w in widths)
        self.logits = _conv1x1(widths[-1] // 2, num_classes)

    def semantic(self, p2: Tensor) -> Semantic:
        """Run the semantic head on P2, once for all RoIs."""
        features = self.semantic_convs(p2)
        return Semantic(features, self.semantic_logits(features).float())

    def forward(self, features: Tensor, semantic: Semantic, rois: Tensor, labels: Tensor) -> list[Tensor]:
        """Logits (R, S, S), float32, of the classes ``labels`` (R,), for S = 14, 28, 56, 112.

        Args:
            features: (R, channels, 14, 14) behind ``convs``.
            semantic: of the batch.
            rois: (R, 5) index of the image, and the box in network-input pixels.
        """
        found = []
        for stage in self.stages:
            logits, features = stage(features, semantic, rois, labels)
            found.append(logits)
        return [*found, logits_of_class(self.logits, features, labels)]


class Stage(nn.Module):
    """One semantic fusion module: instance features, semantic features and both masks make features twice as fine.

    Args:
        config: all choices.
        semantic_channels: of the semantic features.
        channels: of the instance features; half as many come out.
        num_classes: C.
        stride: of the semantic features, network-input pixels.
    """

    def __init__(
        self, config: RefineHeadConfig, semantic_channels: int, channels: int, num_classes: int, stride: int
    ) -> None:
        super().__init__()
        self.stride = stride
        self.semantic_in = _conv1x1(semantic_channels, channels)
        self.semantic_out = _conv1x1(channels, channels)
        self.logits = _conv1x1(channels, num_classes)
        self.fuse = _conv1x1(2 * channels + 2, channels)
        self.branches = nn.ModuleList(roi_conv(channels, channels, "none", dilation) for dilation in config.dilations)
        self.merge = _conv1x1(channels, channels)
        self.out = _conv1x1(channels, channels // 2 - 2)

    def forward(self, features: Tensor, semantic: Semantic, rois: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(R, channels, S, S) -> logits (R, S, S) float32 of the classes, and features (R, channels / 2, 2S, 2S)."""
        side = features.shape[-1]
        around = self._cut(F.relu(self.semantic_in(semantic.features)), rois, side)
        around = F.relu(self.semantic_out(around))
        logits = logits_of_class(self.logits, features, labels)
        masks = torch.cat([logits.sigmoid()[:, None], self._cut(semantic.logits.sigmoid(), rois, side)], 1)
        # The two masks apart: with them the number of channels suits no processor (CPU, bf16: three times as long).
        weight = self.fuse.weight
        x = F.conv2d(torch.cat([features, around.to(features)], 1), weight[:, :-2], self.fuse.bias)
        x = F.relu(x + F.conv2d(masks, weight[:, -2:]))
        x = F.relu(self.merge(sum(branch(x) for branch in self.branches)))
        x = F.relu(_twice(F.relu(self.out(x)), align_corners=False))
        # Features and masks follow different conventions in the original, and its weights have learned them.
        return logits, torch.cat([x, _twice(masks, align_corners=True).to(x)], 1)

    def _cut(self, maps: Tensor, rois: Tensor, side: int) -> Tensor:
        """RoIs of a map with the stride of P2, whatever the size of the box: (R, C, side, side) float32."""
        with torch.autocast(maps.device.type, enabled=False):
            return roi_align(maps.float(), rois, side, 1 / self.stride, -1, aligned=True)


def composed(logits: Sequence[Tensor], width: int) -> Tensor:
    """The final mask logits (R, 112, 112): each finer stage replaces what lies near the boundary of the mask so far.

    The mask of the first stage (14 x 14) is only read by the others.

    Args:
        logits: (R, S, S) of the four stages, the coarsest first.
        width: cells on both sides of the boundary.
    """
    mask = logits[1]
    for finer in logits[2:]:
        far = _at_size(~boundary(mask >= 0, width), finer)
        mask = torch.where(far, _resized(mask, finer), finer)
    return mask


def boundary(masks: Tensor, width: int) -> Tensor:
    """Cells (R, S, S) bool of binary masks with more than a tenth of the other kind in a window around them.

    Outside the RoI is background, so an object that its box cuts has a boundary there.

    Args:
        masks: (R, S, S) bool.
        width: w; the window has 2w + 1 cells along a side.
    """
    side = 2 * width + 1
    share = F.avg_pool2d(masks[:, None].float(), side, 1, width)[:, 0]  # zeros around count
    return torch.where(masks, 1 - share, share) > 0.1


def refine_losses(
    logits: Sequence[Tensor], targets: Sequence[Tensor], weights: Sequence[float], learn_width: int, compose_width: int
) -> Tensor:
    """The weighted sum of the four mask losses.

    The two coarse stages learn every cell, the two fine ones the cells near the boundary of the object or of the mask
    so far, on average over all of them.

    Args:
        logits, targets: (R, S, S) of the four stages, the coarsest first; targets 0 or 1; R > 0.
        weights: of the stages.
        learn_width, compose_width: cells on both sides of a boundary.
    """
    losses = [F.binary_cross_entropy_with_logits(logits[k], targets[k]) for k in (0, 1)]
    mask = logits[1].detach()
    for k in (2, 3):
        finer = logits[k]
        near = boundary(mask >= 0, learn_width) | boundary(targets[k - 1] > 0.5, learn_width)
        learns = _at_size(near, finer)
        every = F.binary_cross_entropy_with_logits(finer, targets[k], reduction="none")
        losses.append((every * learns).sum() / learns.sum().clamp(min=1))
        if k == 2:
            replaced = _at_size(boundary(mask >= 0, compose_width), finer)
            mask = torch.where(replaced, finer.detach(), _resized(logits[1].detach(), finer))
    return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()


def _at_size(cells: Tensor, like: Tensor) -> Tensor:
    """Binary cells at a finer size: where a bilinear value is at least one half."""
    return _resized(cells.float(), like) >= 0.5


def _resized(masks: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(masks[:, None], like.shape[1:], mode="bilinear", align_corners=True)[:, 0]


def _twice(x: Tensor, align_corners: bool) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=align_corners)


def _convs(channels: int, width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(roi_conv(channels if k == 0 else width, width, "none") for k in range(count)))


def _conv1x1(channels: int, out: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, out, 1)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
