"""Learning rate and optimizer."""

from __future__ import annotations

import math
from bisect import bisect_right

import torch
from torch import nn

from engine.config import TrainConfig

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def learning_rate(step: int, config: TrainConfig) -> float:
    """The rate of step 0..iterations-1; depends on nothing else, so a resumed run needs no scheduler state.

    The base rate is scaled linearly from ``reference_batch`` to ``images_per_batch``. Warm-up multiplies whatever the
    schedule says, as in the hosts' own training.
    """
    peak = config.base_lr * config.images_per_batch / config.reference_batch
    if config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * step / config.iterations))
    else:
        factor = config.decay ** bisect_right(config.steps, step)
    if step < config.warmup_iterations:
        part = step / config.warmup_iterations
        factor *= config.warmup_factor * (1 - part) + part
    return peak * factor


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters; those of norm layers have their own weight decay.

    Fused implementations, since they can skip an update on the device (``found_inf``) while the host runs ahead.
    """
    norms = {id(p) for module in model.modules() if isinstance(module, _NORMS) for p in module.parameters()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if id(p) not in norms], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if id(p) in norms], "weight_decay": config.norm_weight_decay},
    ]
    groups = [group for group in groups if group["params"]]
    rate = learning_rate(0, config)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=config.momentum, fused=True)
    if config.momentum:
        # The fused kernel would leave these uninitialised if the very first update were skipped. From zero, the
        # first update is the gradient, as usual.
        for parameter in trainable:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """One rate for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
