"""Checks of weights, before they are written and after they have been read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def not_finite(weights: Mapping[str, Any]) -> str:
    """The name of the first weight that holds NaN or infinity, "" if none does."""
    for name, value in weights.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and not value.isfinite().all():
            return name
    return ""
