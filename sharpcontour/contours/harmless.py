"""Do no harm: an instance whose refined contour has collapsed or wandered off keeps its coarse one.

Paper silent: nothing is said about contours that fold or vanish.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from sharpcontour.contours.geometry import signed_area
from sharpcontour.contours.rasterize import rings_to_rles
from sharpcontour.contours.types import Contours, Rings


def suspects(contours: Contours, moved: Tensor, instances: int, min_iou: float) -> Tensor:
    """Find the instances that may have lost more than the IoU allows, on the device and without rasterising.

    Between its two positions an edge sweeps at most (longer edge) x (longer move of its ends), the masks differ nowhere
    but in the swept area, and IoU >= 1 - swept / coarse area. Only half of the coarse area is counted upon, as a margin
    for pixels and for contours that wind twice.

    Args:
        contours: the coarse contours of K instances.
        moved: (R, N, 2), their vertices after the evolution.
        instances: K.
        min_iou: below which the coarse contour is kept.

    Returns:
        (K,) bool.
    """
    start = contours.vertices
    if start.shape != moved.shape:  # resampled: no vertex knows where it came from
        return torch.ones(instances, dtype=torch.bool, device=start.device)
    move = (moved - start).norm(dim=-1)
    edge = torch.maximum((start.roll(-1, 1) - start).norm(dim=-1), (moved.roll(-1, 1) - moved).norm(dim=-1))
    swept = (edge * torch.maximum(move, move.roll(-1, 1))).sum(1)
    area = signed_area(start).abs() * torch.where(contours.hole, -1.0, 1.0)
    zero = torch.zeros(instances, device=start.device)
    swept_sum = zero.index_add(0, contours.instance, swept)
    area_sum = zero.index_add(0, contours.instance, area)
    safe = swept_sum <= area_sum / 2 * (1 - min_iou)
    tiny = area_sum < 64  # px^2: rasterisation decides
    return ~safe | tiny


def keep_coarse(
    coarse: Sequence[Rings],
    refined: list[Rings],
    sizes: Sequence[tuple[int, int]],
    candidates: Sequence[int],
    min_iou: float,
) -> list[int]:
    """Put the coarse rings back, in place, where the IoU of the two masks is below ``min_iou``.

    Args:
        coarse, refined: K objects before and after.
        sizes: (height, width) of the image of each instance.
        candidates: the instances worth rasterising, see :func:`suspects`.
        min_iou: the limit.

    Returns:
        The instances that were put back, ascending.
    """
    restored = []
    for k in candidates:
        before, after = rings_to_rles([coarse[k], refined[k]], *sizes[k])
        # An empty coarse mask has nothing to lose; it stays as it is (IoU 0).
        if float(coco_mask.iou([after], [before], [0])[0, 0]) < min_iou:
            refined[k] = list(coarse[k])
            restored.append(k)
    return restored
