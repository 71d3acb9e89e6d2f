"""Small pieces that several models share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)`` in float32, whatever autocast says: for layers whose outputs are places, or weights of places.

    bf16 keeps 8 bits of a number: a place of some hundred pixels would be a pixel or two off. Convolutions on an NVIDIA
    GPU keep 11 bits of their factors unless ``torch.backends.cudnn.allow_tf32`` is off, which is torch's default.
    """
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.float())


def group_norm(channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    """GroupNorm with at most 32 groups of at least 8 channels each: 32 groups at the published width of 256."""
    most = max(1, min(32, channels // 8))
    return nn.GroupNorm(next(groups for groups in range(most, 0, -1) if channels % groups == 0), channels, eps)


def conv_gn_relu(channels: int, out_channels: int, kernel: int = 3, bias: bool = False) -> nn.Sequential:
    """Convolution of the same size (stride 1), GroupNorm, ReLU."""
    conv = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, bias=bias)
    return nn.Sequential(conv, group_norm(out_channels), nn.ReLU(inplace=True))


def init_normal(module: nn.Module, std: float = 0.01) -> None:
    """N(0, std) for the weights of every convolution in ``module``, 0 for their biases; norms stay as they are."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_msra(module: nn.Module) -> None:
    """He initialisation (normal, fan out) for every convolution in ``module``, 0 for their biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
