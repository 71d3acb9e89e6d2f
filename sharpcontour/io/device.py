"""Where a process computes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sharpcontour.errors import InputError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cuda", "mps", "cpu")


def choose_device(device: str | torch.device = "auto", local_rank: int = 0) -> torch.device:
    """The device that is meant, which is there; every process of a machine gets its own GPU.

    Args:
        device: one of :data:`DEVICES`, where "auto" takes cuda, else mps, else cpu; or any other device that torch
            knows, such as "cuda:1".
        local_rank: number of this process on its machine, and of the GPU that "cuda" means.

    Raises:
        InputError: where there is no such device.
    """
    import torch  # here: the options of commands need only the names above

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        # Apple's GPU has no collectives.
        if device == "mps" and int(os.environ.get("WORLD_SIZE", 1)) > 1:
            device = "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device}: torch knows none of this name; choose {', '.join(DEVICES)}") from error
    if chosen.type == "cuda":
        return _gpu(chosen, local_rank)
    if chosen.type == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("device mps: this machine has no Apple GPU that torch can use; choose cpu, or auto")
        return chosen
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch has several for a device that is not there
        raise InputError(f"device {chosen}: this machine has none that torch can use; choose cpu, or auto") from error
    return chosen


def _gpu(chosen: torch.device, local_rank: int) -> torch.device:
    import torch

    count = torch.cuda.device_count()
    if count == 0:
        raise InputError(f"device {chosen}: this machine has no CUDA device that torch can use; choose cpu, or auto")
    if chosen.index is None and local_rank >= count:
        raise InputError(
            f"device cuda: process {local_rank} of this machine has no GPU: {count} visible; use --nproc-per-node "
            f"{count}, or the device cpu"
        )
    gpu = local_rank if chosen.index is None else chosen.index
    if gpu >= count:
        raise InputError(f"device {chosen}: this machine's CUDA devices go up to cuda:{count - 1}; choose one of them")
    return torch.device("cuda", gpu)


def to_device(value: Any, device: torch.device) -> Any:
    """Move everything that has ``.to`` (tensors, packed masks) inside lists, tuples and dicts; the rest stays."""
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(item, device) for item in value)
    return value.to(device, non_blocking=True) if hasattr(value, "to") else value


def to_cpu(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """The tensors on the CPU, without gradients; a GPU is waited for once and not once for each of them.

    What comes from a GPU lies in page-locked memory: not for what is large and kept.
    """
    import torch

    copies = [tensor.detach().to("cpu", non_blocking=tensor.is_cuda) for tensor in tensors]
    for device in {tensor.device for tensor in tensors if tensor.is_cuda}:
        torch.cuda.current_stream(device).synchronize()
    return copies
