"""Which process of a run this is, and small Python objects between them; one alone gets its own back."""

from __future__ import annotations

from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def rank_and_size() -> tuple[int, int]:
    """The number of this process among all processes of a run, and how many there are; (0, 1) for one alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gather_objects(value: T) -> list[T]:
    """Gather what every process gave, in order of rank, on every process."""
    if not dist.is_initialized():
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def gather_on_first(value: T) -> list[T]:
    """Gather what every process gave, in order of rank, on rank 0; the others get an empty list."""
    if not dist.is_initialized():
        return [value]
    rank, size = rank_and_size()
    gathered: list[Any] | None = [None] * size if rank == 0 else None
    dist.gather_object(value, gathered)
    return gathered or []


def broadcast_object(value: T) -> T:
    """Return on every process what rank 0 gave."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
