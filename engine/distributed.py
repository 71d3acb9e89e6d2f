"""One or many processes: what torchrun's environment variables say, and the few collectives that training needs.

Everything works without torchrun too, as one process. Collectives are no-ops then.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from sharpcontour.io.device import choose_device

# How long a process waits for the others, e.g. while rank 0 scores an evaluation.
TIMEOUT = timedelta(hours=1)


T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The place of this process among all processes of a run.

    Attributes:
        rank: 0..size-1 over all machines.
        size: number of processes.
        device: where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)

    @property
    def main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


def start(device: str = "auto") -> World:
    """Join the process group that torchrun describes (``env://``), if any.

    Args:
        device: "auto" takes cuda, else mps, else cpu; or a device type.

    Raises:
        InputError: if a machine runs more processes than it has GPUs, or there is no such device.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    chosen = choose_device(device, local_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size > 1:
        # Objects and flags on the CPU travel by gloo, gradients on GPUs by nccl.
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=_store(), rank=rank, world_size=size, timeout=TIMEOUT)
    return World(rank, size, chosen)


def _store() -> dist.Store:
    """Where processes find one another.

    torchrun keeps its store when it restarts processes, so they would find the addresses of those that died. On one
    machine the number of the restart keeps them apart; on several it can differ from machine to machine, and
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 makes torchrun begin a new store.
    """
    store, _, _ = next(rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    return dist.PrefixStore("restart_" + os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def seed_all(*key: int) -> None:
    """Seed torch (every device), numpy and random from a key such as (seed, rank, step).

    Training seeds every step anew, so that the randomness of a step depends on nothing that came before it: a resumed
    run draws the same numbers without any generator state having been stored.
    """
    low, high = np.random.SeedSequence(key).generate_state(2)
    torch.manual_seed(int(high) << 32 | int(low))
    np.random.seed(int(low))
    random.seed(int(low))


def reduce_max(value: Tensor) -> Tensor:
    """The largest ``value`` of all processes, in place; does not wait for a GPU."""
    if dist.is_initialized():
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value


def share_buffers(model: nn.Module) -> None:
    """Give every process the buffers of rank 0: running statistics, which each has changed by its last images."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def barrier() -> None:
    """Wait for all processes."""
    if dist.is_initialized():
        dist.all_reduce(torch.zeros(1))  # on the CPU: one process may be busy there for long, as in an evaluation
