"""Soft masks over whole images: pasted as a whole-image computation pastes them, traced where they lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.condinst.image_masks import ImageMasks
from sharpcontour.config import TracingConfig
from sharpcontour.contours.tracing import contours_from_masks
from sharpcontour.masks.run_lengths import rles_to_masks
from tests.models.helpers import pasted

PADDED = (64, 96)  # network input; maps of 16 x 24 cells
SIZE = (57, 90)  # of the image in it


def blobs(count: int = 6) -> Tensor:
    """Soft discs, some beyond the border, one in two parts, one nowhere."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    places = [(8, 10, 5.2), (0, 0, 4.0), (14, 22, 6.0), (3, 20, 1.1), (9, 4, 3.3), (8, 12, 40.0)]
    maps = torch.stack([torch.sigmoid(1.7 * (r - torch.hypot(y - cy, x - cx))) for cy, cx, r in places[:count]])
    maps[3] = torch.maximum(maps[3], maps[4].flip(1))
    maps[4] *= 0.5
    return maps


def literal(maps: Tensor, stride: int, size: tuple[int, int], out: tuple[int, int]) -> Tensor:
    """Enlarge to the padded size, cut, resize: all pixels of all masks."""
    h, w = maps.shape[1:]
    rows, columns = (((torch.arange(n * stride) - stride // 2) / stride).clamp(0, n - 1).double() for n in (h, w))
    weights = [(1 - (place[:, None] - torch.arange(n)).abs()).clamp(min=0) for place, n in ((rows, h), (columns, w))]
    full = weights[0] @ maps.double() @ weights[1].T
    return F.interpolate(full[:, None, : size[0], : size[1]], out, mode="bilinear", align_corners=False)[:, 0]


@pytest.mark.parametrize("out", [SIZE, (114, 180), (40, 61), (57, 200)])
def test_pasted_as_the_whole_image_is(out: tuple[int, int]) -> None:
    maps = blobs()
    wanted = literal(maps, 4, SIZE, out)
    masks = ImageMasks.from_maps(maps, [SIZE] * len(maps), 4).scaled(1, 1, *out)
    certain = (wanted - 0.5).abs() > 1e-5
    found = rles_to_masks(masks.rles(*out), *out)
    assert found.any((1, 2)).tolist() == [True, True, True, True, False, True]
    assert (found == (wanted > 0.5).numpy())[certain.numpy()].all()
    for k in range(len(maps)):
        inside = wanted[k] > 0.5
        soft = torch.from_numpy(pasted(masks, k, *out)).double()
        torch.testing.assert_close(soft[inside], wanted[k][inside], atol=1e-5, rtol=0)
        rings = masks.rings(*out)[k]
        assert bool(rings) == bool(found[k].any())


def test_only_windows_are_kept_and_parts_can_be_taken() -> None:
    maps = blobs()
    masks = ImageMasks.from_maps(maps, [SIZE] * len(maps), 4)
    assert masks.parts[3].size > 0 and masks.parts[4].size == 0
    assert masks.parts[1].shape == (6, 6)  # four cells from the corner, and the margin
    assert masks[1:3].rles(*SIZE) == masks.rles(*SIZE)[1:3]
    assert len(ImageMasks.from_maps(maps[:0], [], 4)) == 0


def test_contours_lie_where_the_pasted_mask_ends() -> None:
    maps = blobs()
    masks = ImageMasks.from_maps(maps, [SIZE] * len(maps), 4)
    parts, boxes = masks.traceable()
    limits = np.tile([SIZE[1], SIZE[0]], (len(maps), 1))
    contours = contours_from_masks(parts, boxes, 512, TracingConfig(min_area=0, min_share=0), limits)
    whole = literal(maps, 4, SIZE, (SIZE[0], SIZE[1]))
    for ring, k in zip(contours.vertices.numpy(), contours.instance.tolist(), strict=True):
        assert ring.min() >= 0 and (ring <= limits[k]).all()
        # Behind the last cell of the image the map is carried on, and what it holds in the padding left out.
        inner = ring[((ring > 1) & (ring < (86.5, 54.5))).all(1)]
        if k == 5:  # is everywhere
            continue
        grid = torch.from_numpy(inner / limits[k] * 2 - 1).double()[None, None]
        value = F.grid_sample(whole[k][None, None], grid, align_corners=False)[0, 0, 0]
        assert (value - 0.5).abs().max() < 0.06, k  # between the cells both are linear, but not along the same lines
    assert sorted(set(contours.instance.tolist())) == [0, 1, 2, 3, 5]


def test_contours_reach_the_border_of_the_image() -> None:
    """Cells in the padding have learned to be 0; the object still ends at the border."""
    maps = torch.zeros(1, 16, 24)
    maps[0, 4:14, 10:23] = 1  # the image ends within cell row 14 and cell column 22
    masks = ImageMasks.from_maps(maps, [SIZE], 4)
    parts, boxes = masks.traceable()
    contours = contours_from_masks(parts, boxes, 256, TracingConfig(), np.array([[SIZE[1], SIZE[0]]]))
    ring = contours.vertices[0]
    assert ring.amax(0).tolist() == [SIZE[1], SIZE[0]]
    assert ring.amin(0).tolist() == pytest.approx([10 * 4 + 0.5, 4 * 4 + 0.5], abs=0.1)


def test_an_object_in_the_padding_alone_has_no_contour() -> None:
    maps = torch.zeros(1, 16, 24)
    maps[0, 15, 23] = 1
    masks = ImageMasks.from_maps(maps, [SIZE], 4)
    parts, boxes = masks.traceable()
    contours = contours_from_masks(parts, boxes, 64, TracingConfig(), np.array([[SIZE[1], SIZE[0]]]))
    assert len(contours.vertices) == 0 and contours.carried == [[]]
    assert not rles_to_masks(masks.rles(*SIZE), *SIZE).any()
