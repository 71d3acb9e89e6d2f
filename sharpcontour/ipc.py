"""Section 3.2: the instance-aware point classifier phi.

A point is described by its fine-grained feature f (bilinear in a shared 16-channel map) and its place c in the box of
the instance; a small MLP whose weights theta are predicted for each instance tells inside from outside.

Shapes: K instances, R rings of them, Q points of each, P parameters, B images.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpcontour.config import ClassifierConfig
from sharpcontour.errors import InputError
from sharpcontour.host import RefinerInputs
from sharpcontour.sampling import sample_features

DISTANCE_SCALE = 3.0  # signed distances come as -1 to 1; near the contour they should count
SIDE_SCALE = 50.0  # of the same distances in a tanh, which changes its sign within about a pixel of the contour
# Points classified together: on a CPU as many as its cache holds (16 float32 features of them take 2 MiB), elsewhere
# as many as memory should hold (32 MiB).
POINTS_AT_ONCE = {"cpu": 1 << 15}
POINTS_ELSEWHERE = 1 << 19


@dataclass
class Described:
    """What phi knows of K instances, whatever the points: made once for a batch, read at every point.

    Attributes:
        fine: (B, F, H/s, W/s), the map that fine-grained features f are read from, shared by all instances; F is
            ``config.feature_channels``.
        stride: s, in network-input pixels.
        theta: (K, P), the weights of every instance's MLP.
        boxes: (K, 4) xyxy in network-input pixels.
        image_index: (K,) int64, the image of each instance.
        distance: (K, 1, h, w), the signed distance to the given contour, where ``config.distance`` asks for it.
    """

    fine: Tensor
    stride: int
    theta: Tensor
    boxes: Tensor
    image_index: Tensor
    distance: Tensor | None = None


class PointClassifierLike(Protocol):
    """What the refiner asks of phi: an nn.Module with these methods; ``described`` is whatever it wants to know."""

    def describe(self, inputs: RefinerInputs) -> Any:
        """What is the same for all points of the K instances."""

    def __call__(self, described: Any, instance: Tensor, points: Tensor) -> Tensor:
        """Logits of phi (R, Q), positive outside, at points (R, Q, 2) of the instances (R,) int64; its ``forward``."""

    def unused(self) -> Tensor:
        """The sum of the parameters that no output depends on."""


class PointClassifier(nn.Module):
    """phi([f; c]; theta) of section 3.2: the 3x3 convolution, the boundary controller and the MLP.

    Args:
        config: sizes, and what the MLP tells of a point.
        fine_channels: channels of the host's highest-resolution feature map.
        controller_shape: (C, h, w) of the instance features that the controller reads.
        context_channels: channels of the coarser map that comes along with the fine one; 0: none does.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        fine_channels: int,
        controller_shape: tuple[int, int, int],
        context_channels: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        channels = config.feature_channels
        self.encoder = feature_encoder(fine_channels, context_channels, channels)
        self.norm: nn.Module = nn.GroupNorm(1, channels) if config.feature_norm else nn.Identity()
        self.controller = Controller(config, controller_shape)

    def describe(self, inputs: RefinerInputs) -> Described:
        """The shared feature map, and theta of every instance."""
        theta = self.controller(inputs.feats)
        distance = inputs.distance if self.config.distance else None
        if self.config.distance and distance is None:
            raise InputError(
                "sharpcontour.classifier.distance=true is for a host that is given contours, such as anymask; this one "
                "has no distance to tell"
            )
        # All features of a place side by side in memory: a look-up reads one line of the cache instead of 16.
        fine = self.norm(self.encoder(*inputs.maps())).contiguous(memory_format=torch.channels_last)
        return Described(fine, inputs.stride, theta, inputs.boxes, inputs.image_index, distance)

    def forward(self, described: Described, instance: Tensor, points: Tensor) -> Tensor:
        """Logits of phi (R, Q), positive outside the object; phi = sigmoid.

        Args:
            described: from :meth:`describe`.
            instance: (R,) int64, the instance that each row of points asks.
            points: (R, Q, 2) x, y in network-input pixels.
        """
        return self.evaluate(described, instance, points)[:, 0]

    def evaluate(self, described: Described, instance: Tensor, points: Tensor) -> Tensor:
        """All outputs (R, O, Q) of the instances' MLPs at points (R, Q, 2); in float32 whatever autocast says."""
        at_once = POINTS_AT_ONCE.get(points.device.type, POINTS_ELSEWHERE)
        rows = max(at_once // max(points.shape[1], 1), 1)
        if not torch.is_grad_enabled() and len(points) > rows:
            parts = zip(instance.split(rows), points.split(rows), strict=True)
            return torch.cat([self.evaluate(described, i, p) for i, p in parts])
        with torch.autocast(described.fine.device.type, enabled=False):
            f = sample_features(described.fine.float(), described.stride, described.image_index[instance], points)
            c = relative_places(points, described.boxes[instance])
            if described.distance is not None:  # c becomes [x; y; distance; side]
                stride = described.stride * described.fine.shape[3] / described.distance.shape[3]
                distance = sample_features(described.distance.float(), stride, instance, points).transpose(1, 2)
                # What phi is to say of a right contour jumps there: no small MLP makes that of the distance alone.
                c = torch.cat([c, DISTANCE_SCALE * distance, torch.tanh(SIDE_SCALE * distance)], 2)
            return dynamic_mlp(described.theta.float()[instance], f, c, self.config)

    def unused(self) -> Tensor:
        """The sum of the parameters that no output depends on: a loss adds it times 0, since DDP wants all used."""
        return self.controller.unused()


def feature_encoder(fine_channels: int, context_channels: int, channels: int) -> nn.Module:
    """The 3x3 convolution of section 3.2 that makes the shared map of ``channels``; it takes ``RefinerInputs.maps``.

    Args:
        fine_channels: channels of the host's highest-resolution feature map.
        context_channels: channels of the coarser map that comes along with the fine one; 0: none does.
        channels: of the map that features are read from.
    """
    # Paper silent on norm and activation: linear, since negative values are useful to the MLP that follows.
    encoder: nn.Module = nn.Conv2d(fine_channels, channels, 3, padding=1)
    if context_channels:
        encoder = Fusion(fine_channels, context_channels, channels)
    return encoder


class Fusion(nn.Module):
    """The 3x3 convolution of section 3.2 for a host without a pyramid level of stride 4, such as CondInst.

    Paper silent. The residual stage of that resolution shows where edges are, not what they belong to, and the finest
    pyramid level the reverse: both are narrowed by 1x1 convolutions and added before the 3x3 one.

    Args:
        fine_channels, context_channels: of the two maps.
        channels: of the result.
    """

    def __init__(self, fine_channels: int, context_channels: int, channels: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(fine_channels, channels, 1)
        self.context = nn.Conv2d(context_channels, channels, 1)
        self.merge = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, fine: Tensor, context: Tensor) -> Tensor:
        """(B, C, h, w) and a coarser map of the same extent -> (B, channels, h, w)."""
        x = self.fine(fine)
        # Cell j of a map with stride s covers the pixels [s j, s (j + 1)): half-cell alignment.
        return self.merge(x + F.interpolate(self.context(context), x.shape[2:], mode="bilinear", align_corners=False))


class Controller(nn.Module):
    """The boundary controller head: instance features -> theta, by three fully connected layers (section 3.2).

    Paper silent on how a feature map becomes a vector ("we tailor the head", section 3.3). RoI features (larger than
    3x3) first go through a 2x2 convolution with stride 2. A 3x3 neighbourhood of a location is flattened, which makes
    the first layer a 3x3 convolution evaluated at the kept locations alone: a dense one with P outputs on every
    pyramid level would cost more than the host's own heads.

    Args:
        config: sizes of the classifier.
        shape: (C, h, w) of the instance features.
    """

    def __init__(self, config: ClassifierConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        self.reduce: nn.Module = nn.Identity()
        if max(height, width) > 3:
            self.reduce = nn.Sequential(nn.Conv2d(channels, channels, 2, stride=2), nn.ReLU(inplace=True))
            height, width = height // 2, width // 2
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * height * width, config.controller_width),
            nn.ReLU(inplace=True),
            nn.Linear(config.controller_width, config.controller_width),
            nn.ReLU(inplace=True),
        )
        self.predict = nn.Linear(config.controller_width, parameter_count(config))
        nn.init.normal_(self.predict.weight, std=0.01 if config.instance_aware else 0.0)
        with torch.no_grad():
            self.predict.bias.copy_(initial_parameters(config))
        self.instance_aware = config.instance_aware

    def unused(self) -> Tensor:
        """The sum of the layers that a shared (not instance-aware) classifier leaves out: DDP wants them used."""
        total = self.predict.bias.new_zeros(())
        if self.instance_aware:
            return total
        layers = (*self.reduce.parameters(), *self.hidden.parameters(), self.predict.weight)
        return sum((p.sum() for p in layers), total)

    def forward(self, feats: Tensor) -> Tensor:
        """(K, C, h, w) -> theta (K, P), float32."""
        if not self.instance_aware:
            return self.predict.bias.expand(len(feats), -1)
        hidden = self.hidden(self.reduce(feats))
        with torch.autocast(hidden.device.type, enabled=False):  # theta weighs places: rounded, it moves the boundary
            return self.predict(hidden.float())


def layer_sizes(config: ClassifierConfig) -> list[tuple[int, int]]:
    """(inputs, outputs) of every layer of the MLP; the first one's inputs are [c; f], see :func:`dynamic_mlp`.

    "Three hidden layers" (section 3.2) are read literally: three of them and an output layer, 865 parameters.
    """
    outputs = 2 if config.output == "vector" else 1
    widths = [_places(config) + config.feature_channels] + [config.hidden] * config.hidden_layers + [outputs]
    return list(itertools.pairwise(widths))


def _places(config: ClassifierConfig) -> int:
    """Inputs of the MLP beside the feature: x and y in the box; of a given contour also its distance and side."""
    return 4 if config.distance else 2


def parameter_count(config: ClassifierConfig) -> int:
    """P, the number of weights and biases of one instance's MLP, which theta holds."""
    return sum((inputs + 1) * outputs for inputs, outputs in layer_sizes(config))


def initial_parameters(config: ClassifierConfig) -> Tensor:
    """The freshly initialised MLP (P,) that every instance starts from.

    Paper silent. Weights generated from zero-centred noise multiply to almost nothing over four layers, and training
    stalls; the bias of the controller's last layer starts as an ordinary He-initialised classifier instead. Only its
    output layer is zero, so that phi begins at 0.5: otherwise the first thing learned is to silence a random verdict.
    """
    sizes = layer_sizes(config)
    weights = [torch.zeros(outputs, inputs) for inputs, outputs in sizes]
    for weight in weights[:-1]:
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
    return torch.cat([part.flatten() for part in weights] + [torch.zeros(sum(outputs for _, outputs in sizes))])


def dynamic_mlp(theta: Tensor, f: Tensor, c: Tensor, config: ClassifierConfig) -> Tensor:
    """Evaluate the MLP at every row of points, with the weights that were generated for its instance.

    The paper writes the input as [f; c] (section 3.2). Here theta holds the first layer's columns for [c; f]: another
    numbering of the same weights, which controllers trained here depend on.

    Args:
        theta: (R, P), all weights (row-major [out, in]) and then all biases.
        f: (R, C, Q) fine-grained features.
        c: (R, Q, 2) relative locations, (R, Q, 4) with distance and side of the given contour.
        config: sizes.

    Returns:
        (R, O, Q) float32; logits of phi, or what ``config.output`` says.
    """
    sizes = layer_sizes(config)
    parts = theta.split([i * o for i, o in sizes] + [o for _, o in sizes], 1)
    weights = [part.view(-1, o, i) for part, (i, o) in zip(parts, sizes, strict=False)]
    biases = [part[..., None] for part in parts[len(sizes) :]]
    # W [c; f] = W_c c + W_f f, which saves a copy of all features.
    w_c, w_f = weights[0].split([c.shape[2], f.shape[1]], 2)
    x = torch.baddbmm(biases[0], w_c, c.transpose(1, 2))
    x = x.baddbmm_(w_f, f)
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        x = torch.baddbmm(bias, weight, F.relu(x, inplace=True))
    return x


def relative_places(points: Tensor, boxes: Tensor) -> Tensor:
    """Locations c (R, Q, 2) relative to the box: [-1, 1] inside it and not clamped outside (section 3.2).

    Paper silent on the scale: zero-centred inputs suit a small ReLU network.

    Args:
        points: (R, Q, 2) x, y in pixels.
        boxes: (R, 4) xyxy in the same pixels.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=0.5)
    return (points - centre[:, None]) / half[:, None]
