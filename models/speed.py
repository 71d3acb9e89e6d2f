"""Ways to run a model faster that change its numbers, in the last digits or in more of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sharpcontour.errors import InputError

AMP = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Automatic mixed precision by name: what may be computed in a half precision is."""


def lay_out_weights(model: nn.Module) -> None:
    """Lay out the weights of convolutions channels last, and so the maps between them: less time on CPUs and GPUs.

    Those of 1x1 are the same in both layouts, and DDP wants them called by the usual one.
    """
    for parameter in model.parameters():
        if parameter.dim() == 4 and parameter.shape[2:].numel() > 1:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


@contextmanager
def faster(
    model: nn.Module, device: torch.device, amp: str = "none", channels_last: bool = False, tf32: bool = False
) -> Iterator[None]:
    """While this lasts, what this thread computes on the device is computed faster and less exactly.

    Args:
        model: on the device; its weights keep their layout afterwards.
        device: of the model.
        amp: of :data:`AMP`.
        channels_last: see :func:`lay_out_weights`; other kernels, which round otherwise.
        tf32: matrix products in NVIDIA's 19-bit format, in all threads; torch uses it for convolutions anyway.

    Raises:
        InputError: for ``tf32`` without an NVIDIA GPU.
    """
    if tf32 and device.type != "cuda":
        raise InputError(f"TF32 is a format of NVIDIA GPUs, the model is on {device}; leave out --tf32")
    if channels_last:
        lay_out_weights(model)
    before = torch.get_float32_matmul_precision() if tf32 else ""
    try:
        if tf32:
            torch.set_float32_matmul_precision("high")
        with torch.autocast(device.type, AMP[amp], enabled=amp != "none"):
            yield
    finally:
        if tf32:
            torch.set_float32_matmul_precision(before)
