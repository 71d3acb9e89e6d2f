"""Pasting soft masks: against plain full-image references, in both conventions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from models.two_stage.soft_masks import Paste, SoftMasks
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.detections import Detections
from tests.models.helpers import pasted

H, W = 37, 52
BOXES = torch.tensor(
    [
        [5.3, 4.8, 30.2, 29.1],
        [0.0, 0.0, W, H],
        [10.0, 0.0, 20.5, H],  # a whole column
        [40.2, 30.0, W, H],  # a corner
        [7.1, 9.2, 7.9, 9.9],  # less than a pixel
        [12.0, 3.0, 12.0, 8.0],  # empty
        [-6.0, -9.5, 14.0, 11.0],  # off the image
    ]
)


def soft(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = F.avg_pool2d(torch.randn(len(BOXES), 1, 28, 28, generator=generator), 5, 1, 2)[:, 0]
    masks = (noise * 8).sigmoid()
    masks[1], masks[2] = 0.9, 0.8
    return masks


def at_centres(mask: Tensor, box: Tensor) -> Tensor:
    """grid_sample over the whole image, zeros outside of the box."""
    x0, y0, x1, y1 = box
    u = 2 * (torch.arange(W) + 0.5 - x0) / (x1 - x0) - 1
    v = 2 * (torch.arange(H) + 0.5 - y0) / (y1 - y0) - 1
    grid = torch.stack([u.expand(H, W), v[:, None].expand(H, W)], -1)
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]


def in_whole_pixels(mask: Tensor, box: Tensor) -> Tensor:
    """Frame, enlarge, truncate, resize, copy."""
    framed = F.pad(mask, (1, 1, 1, 1))
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * (30 / 28)
    (x0, y0), (x1, y1) = (centre - half).long().tolist(), (centre + half).long().tolist()
    h, w = max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1)
    resized = F.interpolate(framed[None, None], size=(h, w), mode="bilinear", align_corners=False)[0, 0]
    image = torch.zeros(H, W)
    for y in range(max(y0, 0), min(y1 + 1, H)):
        for x in range(max(x0, 0), min(x1 + 1, W)):
            image[y, x] = resized[y - y0, x - x0]
    return image


@pytest.mark.parametrize("paste", ["centre", "integer"])
def test_pasted_as_the_originals_do(paste: Paste) -> None:
    masks = SoftMasks(soft(), BOXES, paste)
    reference = at_centres if paste == "centre" else in_whole_pixels
    rles, rings = masks.rles(H, W), masks.rings(H, W)
    for k, box in enumerate(BOXES):
        found = torch.from_numpy(pasted(masks, k, H, W))
        if (box[2:] > box[:2]).all() or paste == "integer":
            torch.testing.assert_close(found, reference(soft()[k], box), atol=1e-5, rtol=0)
        binary = (found >= 0.5 if paste == "centre" else found > 0.5).numpy()
        assert (coco_mask.decode(rles[k]) == binary).all(), k
        assert (rings_to_masks([rings[k]], H, W)[0] == binary).all(), k
    assert coco_mask.area(rles[1]) == H * W if paste == "centre" else coco_mask.area(rles[1]) > 0.95 * H * W


@pytest.mark.parametrize("paste", ["centre", "integer"])
def test_a_half_belongs_to_the_object_in_one_convention_only(paste: Paste) -> None:
    masks = SoftMasks(torch.full((1, 28, 28), 0.5), torch.tensor([[4.0, 4.0, 32.0, 32.0]]), paste)
    assert (coco_mask.area(masks.rles(H, W)[0]) > 500) == (paste == "centre")


def test_detections_of_soft_masks_are_pasted_at_the_size_asked_for() -> None:
    n = len(BOXES)
    found = Detections(BOXES, torch.ones(n), torch.zeros(n, dtype=torch.int64), SoftMasks(soft(), BOXES), (H, W))
    large = found.scaled_to((2 * H, 3 * W))
    assert large.masks().shape == (n, 2 * H, 3 * W)
    wanted = SoftMasks(soft(), large.boxes)
    assert (large.masks()[0] == (pasted(wanted, 0, 2 * H, 3 * W) >= 0.5)).all()
    assert (rings_to_masks(large.rings, 2 * H, 3 * W) == large.masks()).all()
    assert [entry["segmentation"]["size"] for entry in large.to_coco(1, [5])] == [[2 * H, 3 * W]] * n


def test_no_masks() -> None:
    nothing = SoftMasks(torch.zeros(0, 28, 28), torch.zeros(0, 4))
    assert nothing.rles(H, W) == [] and nothing.rings(H, W) == []
    assert Detections(BOXES[:0], torch.zeros(0), torch.zeros(0), nothing, (H, W)).masks().shape == (0, H, W)
