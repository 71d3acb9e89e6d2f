"""Learning rate and optimizer."""

from __future__ import annotations

import math
from bisect import bisect_right

import torch
from torch import nn

from engine.config import TrainConfig

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of step 0..iterations-1; it depends on nothing else, so a resumed run needs no state of it.

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
    """SGD or AdamW over the trainable parameters; biases and norm layers have their own weight decay.

    Fused implementations, since they can skip an update on the device (``found_inf``) while the host runs ahead.
    """
    norms = {id(p) for module in model.modules() if isinstance(module, _NORMS) for p in module.parameters()}
    weights: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    of_norms: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = of_norms if id(parameter) in norms else biases if name.endswith("bias") else weights
            group.append(parameter)
    of_biases = config.weight_decay if config.bias_weight_decay is None else config.bias_weight_decay
    groups = [
        {"params": weights, "weight_decay": config.weight_decay, "factor": 1.0},
        {"params": biases, "weight_decay": of_biases, "factor": config.bias_lr_factor},
        {"params": of_norms, "weight_decay": config.norm_weight_decay, "factor": 1.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = learning_rate(0, config)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=config.momentum, fused=True)
    if config.momentum:
        # The fused kernel would leave these uninitialised if the very first update were skipped. From zero, the
        # first update is the gradient, as usual.
        for parameter in (*weights, *biases, *of_norms):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter to ``rate`` times the factor of its group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
