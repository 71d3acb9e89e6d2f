"""Which numbers a setting may have: one out of range would end a run much later, or never."""

from __future__ import annotations

import math

_FROM_ONE = """train.images_per_batch train.accumulation train.iterations train.reference_batch train.log_period
train.checkpoint_period train.keep_checkpoints train.eval_batch data.short_sides data.max_side data.test_short_side
data.test_max_side sharpcontour.transformer.width sharpcontour.transformer.layers sharpcontour.transformer.heads
sharpcontour.evolution.max_steps sharpcontour.classifier.feature_channels sharpcontour.classifier.hidden
sharpcontour.classifier.controller_width sharpcontour.points.points"""
_FROM_ZERO = """train.base_lr train.momentum train.weight_decay train.norm_weight_decay train.bias_weight_decay
train.bias_lr_factor train.clip_grad_norm train.steps train.decay train.warmup_iterations train.warmup_factor
train.eval_period train.pictures data.object_crop data.colour data.workers sharpcontour.evolution.ratio
sharpcontour.evolution.iterations sharpcontour.evolution.min_gain
sharpcontour.transformer.spread sharpcontour.tracing.min_move
sharpcontour.tracing.min_area sharpcontour.evolution.normal_window sharpcontour.classifier.hidden_layers
sharpcontour.points.sigma sharpcontour.points.min_sigma sharpcontour.points.enlarge sharpcontour.loss.gamma
sharpcontour.loss.weight sharpcontour.loss.regression_weight"""
LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_FROM_ONE.split(), (1, math.inf)),
    **dict.fromkeys(_FROM_ZERO.split(), (0, math.inf)),
    **dict.fromkeys(("train.seed", "data.seed"), (0, 2**32 - 1)),
    **dict.fromkeys(("data.flip", "data.max_unreadable"), (0, 1)),
    "data.shapes_size": (64, 4096),
    "data.object_share": (0.01, 10),
    "sharpcontour.evolution.vertices": (3, math.inf),
    "sharpcontour.evolution.temperature": (1e-4, math.inf),
    "sharpcontour.evolution.margin": (0, 0.5),
    **dict.fromkeys(("sharpcontour.points.uniform", "sharpcontour.points.given"), (0, 1)),
    **dict.fromkeys(("sharpcontour.evolution.min_iou", "sharpcontour.tracing.min_share"), (0, 1)),
    "sharpcontour.loss.alpha_limits": (0, 1),
}
"""Least and greatest value by key; of a list, of each of its values. No number may be NaN or infinite."""
HOST_LIMITS = {"host.steps": (1, math.inf), "host.box_head.num_fcs": (1, math.inf)}
"""The same of settings that some hosts have."""
NOT_EMPTY = ("data.short_sides",)  # lists
FROM_TO = ("sharpcontour.loss.alpha_limits", "data.object_share", "train.steps")  # no value is above the next


def range_fault(key: str, value: object) -> str:
    """What to choose instead of a value that ``key`` cannot have, in words; "" where it can."""
    values = value if isinstance(value, (tuple, list)) else [value]
    if key in NOT_EMPTY and not values:
        return "name at least one value"
    numbers = [one for one in values if isinstance(one, (int, float))]
    if not all(map(_is_finite, numbers)):
        return "choose a finite number"
    if key in FROM_TO and list(values) != sorted(values):
        return "name smaller ones first"
    low, high = (LIMITS | HOST_LIMITS).get(key, (-math.inf, math.inf))
    if all(low <= number <= high for number in numbers):
        return ""
    return f"choose {low} or more" if high == math.inf else f"choose a number from {low} to {high}"


def _is_finite(number: float) -> bool:
    return isinstance(number, int) or math.isfinite(number)
