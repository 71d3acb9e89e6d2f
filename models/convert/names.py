"""Renaming tensors by rules, and keeping account of those that found no place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

Rules = Sequence[tuple[str, str]]
"""Regular expressions that match whole names, and their replacements; the first that matches counts."""


@dataclass
class Renamed:
    """Tensors by this project's names.

    Attributes:
        weights: by new name.
        unused: names in the file that no rule knows.
        ignored: names in the file that are known to be of no use.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def rename(weights: dict[str, Tensor], rules: Rules, ignored: Iterable[str]) -> Renamed:
    """Apply ``rules``; names that match one of ``ignored`` are left out on purpose."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    useless = [re.compile(pattern) for pattern in ignored]
    result = Renamed()
    for key, value in weights.items():
        if any(pattern.fullmatch(key) for pattern in useless):
            result.ignored.append(key)
            continue
        match = next(((p.fullmatch(key), new) for p, new in compiled if p.fullmatch(key)), None)
        if match is None or match[0] is None:
            result.unused.append(key)
        else:
            result.weights[match[0].expand(match[1])] = value
    return result
