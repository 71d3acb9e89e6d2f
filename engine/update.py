"""One update of the weights, which a loss that is not finite cannot reach.

The decision is made on the device, so the host never waits for it: a loss that is not finite turns its gradients into
NaN, averaging spreads them to all processes, every process so finds the same gradient norm, and the fused optimizer
skips the update where that norm is not finite. The host hears of it later (:class:`Verdicts`).
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from contextlib import nullcontext
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine.config import TrainConfig
from engine.distributed import World, reduce_max
from engine.schedule import build_optimizer
from models.speed import AMP
from sharpcontour.errors import InputError
from sharpcontour.host import Target
from sharpcontour.loss import total_loss

T = TypeVar("T")


class Updater:
    """One update of the weights: forward, backward, clipping and the optimizer, over all processes.

    Args:
        model: on its device; ``model(images, targets)`` gives scalars by name, those named "loss..." are summed up.
        config: of the training.
        world: this process's place; with several, gradients are averaged.

    Raises:
        InputError: for norms over several processes without GPUs, which torch does not have.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, world: World) -> None:
        together = any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
        if together and world.size > 1 and world.device.type != "cuda":
            raise InputError(
                f"norms of the kind sync_bn need GPUs, and here are {world.size} processes on {world.device.type}; set "
                "them to bn, or start one process"
            )
        self.config, self.world = config, world
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(model, config)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.amp == "fp16")
        # The weights of 1x1 convolutions have the same order in memory in both layouts, whatever their strides say.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        # No device_ids: inputs are on the device already. Models touch every parameter in every pass.
        self.model = DistributedDataParallel(model) if world.size > 1 else model
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        running = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
        self._statistics = [buffer for buffer in running if buffer is not None]
        self._backup = [buffer.clone() for buffer in self._statistics]

    def lay_out_moments(self) -> None:
        """Lay out the optimizer's moments in memory as their weights are, whatever the file that they came from has.

        The fused kernels go through both in the order of memory.
        """
        for parameter, moments in self.optimizer.state.items():
            for name, value in moments.items():
                if name != "step" and isinstance(value, Tensor) and value.shape == parameter.shape:
                    moments[name] = torch.empty_like(parameter).copy_(value)

    def begin(self) -> None:
        """Start an update without gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        if self._backup:
            torch._foreach_copy_(self._backup, self._statistics)

    def backward(self, images: list[Tensor], targets: list[Target], last: bool) -> dict[str, Tensor]:
        """Add the gradients of one part of the batch.

        Args:
            images: this process's share.
            targets: of these images.
            last: whether this part completes the batch, so that processes average their gradients now.

        Returns:
            What the model gave, and their sum "loss", without gradients.
        """
        dtype = AMP[self.config.amp]
        model = self.model
        with model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext():
            with torch.autocast(self.world.device.type, dtype, enabled=dtype is not None):
                values = model(images, targets)
            total = total_loss(values)
            poison = torch.where(total.detach().isfinite(), 1.0, math.nan)
            self.scaler.scale(total * poison / self.config.accumulation).backward()
        return {"loss": total.detach(), **{name: value.detach() for name, value in values.items()}}

    def finish(self) -> tuple[Tensor, Tensor]:
        """Clip the gradients and update the weights, or skip the update.

        Returns:
            The gradient norm before clipping, and whether the update was skipped (bool); both on the device.
        """
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        skip = ~norm.isfinite()
        if self.scaler.is_enabled():
            # One decision: gradients that are finite may still have a norm that is not.
            for found in self.scaler._found_inf_per_device(self.optimizer).values():
                found.copy_(torch.maximum(found, skip.to(found)))
                skip = skip | (found > 0).to(skip.device)
        else:
            self.optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
        if self.config.clip_grad_norm:
            nn.utils.clip_grads_with_norm_(self.parameters, self.config.clip_grad_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self._backup:
            pairs = zip(self._backup, self._statistics, strict=True)
            torch._foreach_copy_(self._statistics, [torch.where(skip, kept, buffer) for kept, buffer in pairs])
        return norm, skip


class Verdicts(Generic[T]):
    """Whether updates were skipped and whether a stop was asked for, the same on all processes.

    On a GPU the answer for an update is read after the next one has been queued, so that the device never runs dry.
    """

    def __init__(self, world: World) -> None:
        self._device = world.device
        self._waiting: deque[tuple[Tensor, torch.cuda.Event | None, T]] = deque()

    def push(self, skipped: Tensor, stop: bool, record: T) -> None:
        """Hand in the outcome of an update together with what must be known if it was skipped."""
        flags = torch.stack([skipped.float(), torch.full_like(skipped, stop, dtype=torch.float32)])
        reduce_max(flags)
        if self._device.type != "cuda":
            self._waiting.append((flags, None, record))
            return
        host = torch.empty(2, pin_memory=True).copy_(flags, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((host, event, record))

    def pop(self, everything: bool = False) -> list[tuple[bool, bool, T]]:
        """(skipped, stop, record) of the updates whose outcome is known, or of all; oldest first."""
        delay = 1 if self._device.type == "cuda" and not everything else 0
        known = []
        while len(self._waiting) > delay:
            flags, event, record = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            skipped, stop = flags.tolist()
            known.append((skipped > 0, stop > 0, record))
        return known
