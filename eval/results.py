"""Tables of an evaluation, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.bootstrap import standard_error
from sharpcontour.formats.which_image import first_names

_ROWS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_TITLES = {"segm": "mask AP", "boundary": "Boundary AP", "lvis": "AP* (LVIS)", "cityscapes": "Cityscapes"}


def format_table(metrics: Mapping[str, Any]) -> str:
    """Mask AP and Boundary AP in percent, the refined results beside the coarse ones with the difference.

    Args:
        metrics: of :func:`eval.inference.evaluate_model`, or {"results": {"segm": {...}, "boundary": {...}}}: only
            "coarse", "refined" and "results" are looked at.

    Returns:
        Lines of text. Undefined numbers, such as APl without a large object, are dashes.
    """
    columns = {name: metrics[name] for name in ("coarse", "refined", "results") if metrics.get(name)}
    change = "coarse" in columns and "refined" in columns
    headings = [*columns, "change"] if change else list(columns)
    kinds = [kind for kind in _TITLES if all(kind in values for values in columns.values())]
    cell = 9 if len(headings) > 1 else 12  # a single column must be as wide as its title
    width = cell * len(headings) + 2
    lines = [" " * 6 + "".join(f"{_TITLES[kind]:>{width}}" for kind in kinds)]
    lines.append(" " * 6 + "".join("  " + "".join(f"{name:>{cell}}" for name in headings) for _ in kinds))
    for row in _ROWS:
        if all(row not in scores[kind] for kind in kinds for scores in columns.values()):
            continue  # Cityscapes' tool knows two numbers alone
        line = f"{row:<6}"
        for kind in kinds:
            values = [scores[kind].get(row) for scores in columns.values()]
            cells = ["-" if value is None else f"{value:.1f}" for value in values]
            if change:
                cells.append("-" if None in values else f"{values[1] - values[0]:+.1f}")
            line += "  " + "".join(f"{value:>{cell}}" for value in cells)
        lines.append(line)
    return "\n".join(lines)


def format_errors(replicates: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Standard errors over images in a line for each metric, that of the change from paired draws.

    Args:
        replicates: "coarse", "refined" or "results" -> metric -> AP of images drawn again.
    """
    lines = []
    for kind, values in next(iter(replicates.values())).items():
        if len(values) < 2:
            continue  # no object, or a single draw
        drawn = {name: np.array(values[kind]) for name, values in replicates.items()}
        if {"coarse", "refined"} <= set(drawn):
            drawn["change"] = drawn["refined"] - drawn["coarse"]
        errors = ", ".join(f"{name} {standard_error(values):.2f}" for name, values in drawn.items())
        count = len(next(iter(drawn.values())))
        lines.append(f"standard error of {_TITLES[kind]} over images, {count} draws: {errors}")
    return "\n".join(lines)


def format_categories(per_category: Mapping[str, Mapping[str, float | None]]) -> str:
    """AP of every category in percent, a column for each metric.

    Args:
        per_category: metric -> category name -> AP, or None where the ground truth has no such object.
    """
    kinds = [kind for kind in _TITLES if kind in per_category]
    names = list(per_category[kinds[0]]) if kinds else []
    shown = {name: "".join(c if c.isprintable() else " " for c in name) for name in names}  # each stays in its line
    width = max(map(len, names), default=0) + 2
    lines = [" " * width + "".join(f"{_TITLES[kind]:>14}" for kind in kinds)]
    for name in names:
        values = [per_category[kind][name] for kind in kinds]
        lines.append(f"{shown[name]:<{width}}" + "".join(f"{'-' if v is None else f'{v:.1f}':>14}" for v in values))
    return "\n".join(lines)


def format_summary(result: Mapping[str, Any]) -> str:
    """What else :func:`eval.inference.evaluate_model` found, in a few lines.

    Counts and seconds by stage; detections that were left out; the state of the refiner; images that could not be used.
    """
    seconds = result["seconds"]
    stages = ", ".join(f"{stage} {seconds[stage]:.1f} s" for stage in ("load", "forward", "encode", "match"))
    lines = [f"{result['detections']} detections on {result['images']} images; {stages}"]
    if result["others"]:
        lines.append(f"{result['others']} more detections are of categories that the data set lacks, and left out")
    stats = {key: value for key, value in result["stats"].items() if key != "contours"}
    if stats:
        shown = (
            f"{key} {' '.join(f'{v:.3g}' for v in (value if isinstance(value, list) else [value]))}"
            for key, value in stats.items()
        )
        lines.append(f"refiner, {result['stats'].get('contours', 0)} contours: {', '.join(shown)}")
    if left_out := left_out_line(result):
        lines.append(left_out)
    return "\n".join(lines)


def left_out_line(result: Mapping[str, Any], fate: str = "count as missed") -> str:
    """Which images an evaluation could not use, in a line, and what becomes of their objects; empty without any."""
    lines = result["left_out"]
    if not lines:
        return ""
    listed = first_names(lines, separator="; ")
    return f"warning: {len(lines)} images cannot be used, and their objects {fate}: {listed}"
