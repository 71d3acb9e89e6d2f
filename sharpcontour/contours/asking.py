"""Asking phi at points of contours, and on a CPU only where an answer counts.

On a CPU the time goes into the points that are classified, so vertices whose answer nobody needs are left out. A GPU
has room for all of them at once; to learn which count, the host would have to wait for it.

Shapes: R rings, N vertices, S points of each vertex, B rows of points, Q points of a row.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

BLOCK = 16  # vertices of one ring that make up a row; the last row of a ring is filled up
STEPS = 5  # of a march that are asked together, before vertices that have flipped are left out
FEW = 1 << 14  # points whose classification takes hardly longer than making two calls of it: their march is one call


class Classifier(Protocol):
    """Tells on which side of its object's boundary a point lies."""

    def __call__(self, points: Tensor, rings: Tensor | None = None) -> Tensor:
        """Logits of phi (B, Q), positive outside the object.

        Args:
            points: (B, Q, 2) in network-input pixels.
            rings: (B,) int64, the ring whose object each row of points asks about, ascending; None: one row for every
                ring, in their order.
        """


def sparing(device: torch.device) -> bool:
    """Whether points that do not count are left out: not on a GPU, and not in a graph that is made for any data."""
    return device.type == "cpu" and not torch.compiler.is_compiling()


def steps_at_once(vertices: Tensor, steps: int) -> int:
    """How many steps of a march of vertices (R, N, 2) are asked together, of ``steps`` in all."""
    if not sparing(vertices.device) or vertices.shape[0] * vertices.shape[1] * steps <= FEW:
        return max(steps, 1)
    return STEPS


def ask(classify: Classifier, points: Tensor, wanted: Tensor) -> Tensor:
    """Logits of phi at S points of every vertex.

    Args:
        classify: logits of phi at points.
        points: (R, N, S, 2) in network-input pixels.
        wanted: (R, N) bool, the vertices whose answers count.

    Returns:
        (R, N, S); of the vertices that are not wanted: 0, or what they happen to have.
    """
    rings, vertices, steps = points.shape[:3]
    if not sparing(points.device):
        return classify(points.flatten(1, 2)).reshape(rings, vertices, steps)
    count = wanted.sum(1)
    blocks = (count + BLOCK - 1).div(BLOCK, rounding_mode="floor")
    if int(blocks.sum()) * BLOCK >= wanted.numel():  # nothing to save
        return classify(points.flatten(1, 2)).reshape(rings, vertices, steps)
    logits = points.new_zeros(rings * vertices, steps)
    chosen = wanted.flatten().nonzero()[:, 0]
    if len(chosen):
        rows, owner, place = _rows(chosen, count, blocks, vertices)
        asked = points.flatten(0, 1)[rows].view(len(owner), -1, 2)
        logits[chosen] = classify(asked, owner).reshape(-1, steps)[place]
    return logits.view(rings, vertices, steps)


def _rows(chosen: Tensor, count: Tensor, blocks: Tensor, vertices: int) -> tuple[Tensor, Tensor, Tensor]:
    """Put the chosen ones of R * N vertices, ``count`` of every ring, into B rows of :data:`BLOCK`, ``blocks`` a ring.

    Returns:
        The vertices in the rows (B * BLOCK,), the ring of each row (B,), and where the chosen ones are among them.
    """
    owner = torch.arange(len(count), device=count.device).repeat_interleave(blocks)
    # A ring's first row begins behind the rows of the rings before it: shift its vertices by the gaps in between.
    gap = (blocks.cumsum(0) - blocks) * BLOCK - (count.cumsum(0) - count)
    place = torch.arange(len(chosen), device=count.device) + gap.repeat_interleave(count)
    rows = (owner * vertices).repeat_interleave(BLOCK)
    rows[place] = chosen
    return rows, owner, place
