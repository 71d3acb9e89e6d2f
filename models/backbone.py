"""ResNet or ResNeXt with a feature pyramid, P2 or P3 to P6 or P7.

The residual blocks are torchvision's, and so are the parameter names: ImageNet weights load as they are.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from models.layers import group_norm
from sharpcontour.errors import InputError

_BODY = re.compile(r"(?:host\.)?backbone\.body\.(.+)")  # a host's weights, alone or before a refiner
# block, blocks of the four stages, groups of the 3x3 convolutions, their width
_RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int], int, int]] = {
    "resnet10": (BasicBlock, (1, 1, 1, 1), 1, 64),
    "resnet18": (BasicBlock, (2, 2, 2, 2), 1, 64),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 1, 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 1, 64),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 1, 64),
    "resnext101_32x8d": (Bottleneck, (3, 4, 23, 3), 32, 8),
}


class AffineBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics stay as they were loaded, while its scale and shift learn (mmdet's norm_eval)."""

    def train(self, mode: bool = True) -> AffineBatchNorm2d:
        return super().train(False)


_NORMS: dict[str, Callable[..., nn.Module]] = {
    "frozen_bn": FrozenBatchNorm2d,
    "affine_bn": AffineBatchNorm2d,
    "bn": nn.BatchNorm2d,
    "sync_bn": nn.SyncBatchNorm,
    "gn": group_norm,
}


@dataclass
class BackboneConfig:
    """Settings of a ResNet or ResNeXt with a feature pyramid; the defaults are torchvision's ImageNet ResNet-50."""

    name: str = "resnet50"  # in BODIES: resnet10, resnet18, resnet34, resnet50, resnet101, resnext101_32x8d
    # Of the body: "imagenet" (torchvision, downloaded once), "none" (random), or the path of a file, which may be a
    # checkpoint too: who goes on from converted weights so keeps frozen what the original keeps frozen.
    weights: str = "imagenet"
    # Of the body. frozen_bn and affine_bn (its scale and shift learn) keep the statistics of pre-trained weights.
    norm: Literal["frozen_bn", "affine_bn", "bn", "sync_bn", "gn"] = "frozen_bn"
    freeze_at: int = 2  # stages without gradients: 0 none, 1 stem, 2 also res2, ...; random weights are never frozen
    norm_eps: float = 1e-5  # added to the variance; torchvision's Mask R-CNN weights of COCO: 0
    width: int = 64  # channels of the stem; the stages have 1, 2, 4, 8 times as many (4 x that with bottlenecks)
    stride_in_1x1: bool = False  # where a stage halves the resolution; True: Caffe's weights, False: torchvision's
    channel_order: Literal["rgb", "bgr"] = "rgb"  # that the weights expect; bgr: Caffe's
    pixel_range: float = 255.0  # values 0 to 255 are scaled to 0 to this, before mean and std count
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # in channel_order
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)  # in channel_order; Caffe's weights: 1, 1, 1
    fpn_channels: int = 256  # of every pyramid level
    fpn_norm: Literal["none", "bn", "sync_bn", "gn"] = "none"  # after every convolution of the pyramid


def small_body() -> BackboneConfig:
    """Settings of the body for the built-in shapes: a narrow ResNet-18 from random weights."""
    return BackboneConfig("resnet18", "none", "bn", width=32, fpn_channels=64)


CaffeBody = Literal["resnet50", "resnet101", "resnext101_32x8d"]


def caffe_body(name: CaffeBody, weights: str = "imagenet") -> BackboneConfig:
    """Settings of Detectron2's bodies: BGR values, and in ResNets the stride in the 1x1 convolution.

    ImageNet weights of this kind (made by Caffe) must be given as a file, converted by scripts/convert.py.
    """
    grouped = name == "resnext101_32x8d"
    return BackboneConfig(
        name,
        weights,
        stride_in_1x1=not grouped,
        channel_order="bgr",
        pixel_mean=(103.53, 116.28, 123.675),
        pixel_std=(57.375, 57.12, 58.395) if grouped else (1.0, 1.0, 1.0),
    )


class Body(Protocol):
    """What computes the four stages that the pyramid rests on; an nn.Module.

    Attributes:
        settings: names of the fields of :class:`BackboneConfig` that it reads, out of those that only a body reads.
        channels: of the four stages.
    """

    settings: ClassVar[frozenset[str]]
    channels: list[int]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> four maps with strides 4, 8, 16, 32."""


class Backbone(nn.Module):
    """Normalised images (B, 3, H, W), H and W multiples of 32 -> {"p2": (B, C, H/4, W/4), "p3": ..., ...}.

    Args:
        config: all choices.
        top: what lies above P5. "p6p7": P6 is a stride-2 convolution of P5, P7 one of ReLU(P6), as in FCOS. "pool": P6
            is every second cell of P5, as in Mask R-CNN.
        finest: level of the pyramid. Without a P2, "c2" comes along: the residual stage itself that P2 would rest on.
    """

    strides: ClassVar = {"c2": 4, "p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}

    def __init__(
        self, config: BackboneConfig, top: Literal["p6p7", "pool"] = "p6p7", finest: Literal["p2", "p3"] = "p2"
    ) -> None:
        super().__init__()
        self.body: Any = build_body(config)
        self.finest, self.pyramid_channels = finest, config.fpn_channels
        channels = config.fpn_channels
        # torchvision's pyramid is the one wanted: nearest-neighbour sums, Caffe2's "Xavier" (uniform, a = 1), biases 0.
        # Its P6 reads P5 when told equal widths.
        extra = LastLevelP6P7(channels, channels) if top == "p6p7" else LastLevelMaxPool()
        norm = None if config.fpn_norm == "none" else _NORMS[config.fpn_norm]
        self.fpn = FeaturePyramidNetwork(self.body.channels[0 if finest == "p2" else 1 :], channels, extra, norm)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        stages = OrderedDict(zip(("p2", "p3", "p4", "p5"), self.body(images), strict=True))
        levels = {} if self.finest == "p2" else {"c2": stages.pop("p2")}
        # torchvision names the pooled level "pool".
        return levels | {"p6" if name == "pool" else name: level for name, level in self.fpn(stages).items()}

    def channels(self, level: str) -> int:
        """Channels of a level that :meth:`forward` gives, by its name."""
        return self.body.channels[0] if level == "c2" else self.pyramid_channels


class ResNet(nn.Module):
    """The four residual stages, as a list of feature maps with strides 4, 8, 16, 32.

    Raises:
        InputError: for an unknown name or norm, and where the weights cannot be had.
    """

    settings: ClassVar = frozenset({"norm", "freeze_at", "norm_eps", "width", "stride_in_1x1"})

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        _check(config)
        block, depths, self._groups, self._group_width = _RESNETS[config.name]
        norm = partial(_NORMS[config.norm], eps=config.norm_eps)
        self.conv1 = nn.Conv2d(3, config.width, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(config.width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        planes = [config.width * 2**i for i in range(4)]
        self.channels = [p * block.expansion for p in planes]
        before = [config.width, *self.channels[:3]]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            self._stage(block, before[i], planes[i], depths[i], 1 if i == 0 else 2, norm, config.stride_in_1x1)
            for i in range(4)
        )
        self._initialise()
        if config.weights != "none":
            _load(self, config)
            self._freeze(config.freeze_at)
        else:
            self._freeze(0)

    def _stage(
        self, block: Any, channels: int, planes: int, depth: int, stride: int, norm: Any, stride_in_1x1: bool
    ) -> nn.Sequential:
        """One residual stage; the first block changes the resolution and the width."""
        out = planes * block.expansion
        shortcut = None
        if stride != 1 or channels != out:
            shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), norm(out))
        shape = {"groups": self._groups, "base_width": self._group_width, "norm_layer": norm}
        first = block(channels, planes, stride, shortcut, **shape)
        if stride_in_1x1 and block is Bottleneck:
            first.conv1.stride, first.conv2.stride = (stride, stride), (1, 1)
        return nn.Sequential(first, *(block(out, planes, **shape) for _ in range(depth - 1)))

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def _freeze(self, count: int) -> None:
        modules = [self.conv1, self.bn1, self.layer1, self.layer2, self.layer3, self.layer4]
        self._frozen = modules[: count + 1] if count else []  # the stem is two of them
        for module in self._frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> ResNet:
        super().train(mode)
        for module in self._frozen:  # a frozen stage keeps the statistics of its weights too
            module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps


BODIES: dict[str, Callable[[BackboneConfig], Any]] = dict.fromkeys(_RESNETS, ResNet)
"""Name -> what makes the :class:`Body` of it. One of your own is a class and an entry here, see docs/extending.md."""


def build_body(config: BackboneConfig) -> Any:
    """The :class:`Body` that a configuration names.

    Raises:
        InputError: for an unknown name, and for a setting that the body has no use for.
    """
    if config.name not in BODIES:
        raise InputError(f"backbone.name is {config.name!r}; valid: {', '.join(BODIES)}")
    body: Any = BODIES[config.name]
    usual = BackboneConfig()
    for name in sorted(ResNet.settings - body.settings):
        if getattr(config, name) != getattr(usual, name):
            raise InputError(
                f"backbone.{name}={getattr(config, name)} means nothing to {config.name}; leave it at "
                f"{getattr(usual, name)} (--set host.backbone.{name}={getattr(usual, name)})"
            )
    return body(config)


def _check(config: BackboneConfig) -> None:
    choices = {
        "name": tuple(_RESNETS),
        "norm": tuple(_NORMS),
        "fpn_norm": ("none", "bn", "sync_bn", "gn"),  # statistics that nothing ever learned mean nothing
        "freeze_at": tuple(range(6)),
        "channel_order": ("rgb", "bgr"),
    }
    for key, valid in choices.items():
        value = getattr(config, key)
        if value not in valid:
            raise InputError(f"backbone.{key} is {value!r}; valid: {', '.join(map(str, valid))}")
    if config.weights == "imagenet" and (config.stride_in_1x1 or config.channel_order == "bgr"):
        raise InputError(
            f"this {config.name} begins from the ImageNet weights of Caffe: fetch the .pkl that Detectron2 begins from "
            "(MSRA/R-50.pkl, MSRA/R-101.pkl or FAIR/X-101-32x8d.pkl under "
            "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/), convert it with scripts/convert.py "
            "--from detectron2, and set host.backbone.weights to the file"
        )
    if config.weights == "imagenet" and (config.norm == "gn" or config.name == "resnet10" or config.width != 64):
        raise InputError(
            f"no ImageNet weights exist for {config.name} with width {config.width} and norm {config.norm}; "
            "set host.backbone.weights to none or to the path of a file"
        )


def _load(body: ResNet, config: BackboneConfig) -> None:
    """Load ImageNet weights into ``body``; the classification layer is left out."""
    state = _imagenet_weights(config.name) if config.weights == "imagenet" else _file_weights(config.weights)
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    try:
        missing = body.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(f"{config.weights}: {str(error).splitlines()[-1].strip()}") from error
    # Older files lack this counter, which nothing here reads.
    absent = [key for key in missing.missing_keys if not key.endswith("num_batches_tracked")]
    if absent or missing.unexpected_keys:
        odd = [*absent, *missing.unexpected_keys][0]
        raise InputError(f"{config.weights}: not the weights of {config.name} with norm {config.norm} (see {odd})")


def _imagenet_weights(name: str) -> dict[str, Tensor]:
    # V1 of torchvision's weights: the plain training recipe that published detectors start from.
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; RuntimeError: a truncated download
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise InputError(
            f"cannot download the ImageNet weights of {name} ({error}): fetch {weights.url} to {cache}, "
            "or set host.backbone.weights to the path of a file or to none"
        ) from error


def _file_weights(path: str) -> dict[str, Tensor]:
    """The weights of a body, from a file that holds nothing else or out of a checkpoint of a whole model."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: cannot be read as weights (refused: it holds more than tensors and plain values); give "
            "host.backbone.weights a torch file"
        ) from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as weights ({reason}); give host.backbone.weights a torch file"
        ) from error
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds no weights by name; give host.backbone.weights a torch file that does")
    # Of the host alone, for a refiner may have a network of its own.
    bodies = {found[1]: value for key, value in state.items() if (found := _BODY.fullmatch(key))}
    return bodies or dict(state)
