"""Which object every anchor or proposal of an image learns, and which of them are taken.

Shapes: A anchors or proposals, G objects.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

BACKGROUND, IGNORED = -1, -2


def match(
    boxes: Tensor,
    objects: Tensor,
    foreground: float,
    background: float,
    claim: float | None = None,
    seize: bool = False,
) -> Tensor:
    """(A,) int64: the object of each box, :data:`BACKGROUND` or, in between, :data:`IGNORED`.

    Args:
        boxes: (A, 4).
        objects: (G, 4).
        foreground: IoU from which a box learns the object it overlaps most.
        background: IoU below which it is background.
        claim: let the boxes that overlap an object most learn as well, if their IoU is at least this and not 0.
        seize: such boxes learn that object, the last of several, and not the one that they overlap most (mmdet).
    """
    if len(objects) == 0 or len(boxes) == 0:
        return torch.full((len(boxes),), BACKGROUND, device=boxes.device)
    iou = box_iou(objects, boxes)
    best, index = iou.max(0)
    matched = torch.where(best >= foreground, index, torch.where(best < background, BACKGROUND, IGNORED))
    if claim is not None:
        most = iou.amax(1, keepdim=True)
        # An object that touches no anchor would tie with all of them at 0.
        claims = (iou == most) & (most > 0) & (most >= claim)
        if seize:
            count = torch.arange(1, len(objects) + 1, device=boxes.device)
            index = (claims * count[:, None]).amax(0) - 1
        matched = torch.where(claims.any(0), index, matched)
    return matched


def draw(matched: Tensor, count: int, foreground_share: float) -> tuple[Tensor, Tensor]:
    """A random sample: at most ``count`` boxes, at most the share of them with an object, the rest background.

    Nothing waits for the device: places of the sample that cannot be filled are marked instead of left out.

    Args:
        matched: (A,) from :func:`match`.
        count: S.
        foreground_share: at most, 0 to 1.

    Returns:
        (S',) indices into the boxes, those with an object first, and (S',) bool, which of them count; S' <= S + the
        foreground's share.
    """
    key = torch.rand(len(matched), device=matched.device)
    wanted = int(count * foreground_share)
    first, index = torch.where(matched >= 0, key, -1.0).topk(min(wanted, len(matched)))
    rest, others = torch.where(matched == BACKGROUND, key, -1.0).topk(min(count, len(matched)))
    rank = torch.arange(len(rest), device=rest.device)
    counts = torch.cat([first >= 0, (rest >= 0) & (rank < count - (first >= 0).sum())])
    return torch.cat([index, others]), counts
