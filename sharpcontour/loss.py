"""Section 3.4: the focal loss with a dynamic alpha, eq. (2), and the sum of all losses, eq. (3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpcontour.config import LossConfig
from sharpcontour.errors import InputError


def ipc_loss(logits: Tensor, labels: Tensor, config: LossConfig) -> Tensor:
    """Eq. (2) over all points of a pass, before the weight mu of eq. (3).

    Args:
        logits: of phi, any shape; y_hat of eq. (2) is phi itself, since a hard label has no gradient.
        labels: y of eq. (2), same shape: 1 outside and 0 inside.
        config: gamma, and the limits of alpha.

    Returns:
        The mean over the points (paper silent: with it mu = 10 gives the size of a mask loss at the start).

    Raises:
        InputError: where the two have not the same shape.
    """
    if logits.shape != labels.shape:
        raise InputError(f"phi has the shape {tuple(logits.shape)} at points whose labels have {tuple(labels.shape)}")
    alpha = dynamic_alpha(labels, config)
    # (1 - phi)^gamma as exp(gamma log(1 - phi)): the derivative of a power below 1 has no bound at 0.
    log_phi, log_rest = F.logsigmoid(logits), F.logsigmoid(-logits)
    outside = -alpha * (config.gamma * log_rest).exp() * log_phi
    inside = -(1 - alpha) * (config.gamma * log_phi).exp() * log_rest
    return torch.where(labels > 0.5, outside, inside).mean()


def dynamic_alpha(labels: Tensor, config: LossConfig) -> Tensor:
    """Alpha, the weight of the points outside: N_neg / (N_pos + N_neg) of the current batch.

    The batch is that of one pass: of each process, and of each part of an accumulated batch, its own.

    The paper says "the ratio of current positive and negative samples". Taken as N_pos / N_neg it exceeds 1 in some
    batches, where 1 - alpha turns negative and training diverges; the share of the *other* class gives both classes
    the same total weight, which is what the paper wants compensated.
    """
    return (1 - labels.mean()).clamp(*config.alpha_limits).detach()


def total_loss(values: Mapping[str, Tensor]) -> Tensor:
    """Eq. (3), L = L_s + mu L_IPC: the sum of what is named "loss..."; a model without the refiner has L_s alone.

    Args:
        values: scalars by name that a model in training gives, already weighted; others are for the log.
    """
    return torch.stack([value for name, value in values.items() if name.startswith("loss")]).sum()
