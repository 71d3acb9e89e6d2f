"""RefineMask: its boundary, composition and losses beside literal computations, its published size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.refinemask import RefineMask, RefineMaskConfig
from models.refinemask.heads import RefineHead, RefineHeadConfig, boundary, composed, refine_losses
from models.refinemask.model import any_object
from models.two_stage.matching import BACKGROUND, match
from tests.models.helpers import disc
from tests.sharpcontour.helpers import packed_masks


def literal_boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """Window by window, background around the map."""
    framed, found = np.pad(mask, width), np.zeros_like(mask)
    for i, j in np.ndindex(mask.shape):
        window = framed[i : i + 2 * width + 1, j : j + 2 * width + 1]
        others = (window != mask[i, j]).sum()
        found[i, j] = others / window.size > 0.1
    return found


@pytest.mark.parametrize(("width", "needed"), [(1, 1), (2, 3), (3, 5)])
def test_boundary_is_a_window_count(width: int, needed: int) -> None:
    masks = np.stack([disc(9, 8, 6, 18, 20), np.ones((18, 20), bool), np.zeros((18, 20), bool)])
    found = boundary(torch.from_numpy(masks), width).numpy()
    for mask, edge in zip(masks, found, strict=True):
        assert (edge == literal_boundary(mask, width)).all()
    assert found[1, 0].all() and not found[1, 5:-5, 5:-5].any() and not found[2].any()
    for count in (needed - 1, needed):
        mask = torch.zeros(1, 21, 21, dtype=torch.bool)
        mask[0, 10 - width, 10 - width : 10 - width + count] = True  # in the first row of the centre's window
        assert boundary(mask, width)[0, 10, 10] == (count >= needed)


def resized(x: Tensor, side: int) -> Tensor:
    return F.interpolate(x[:, None], (side, side), mode="bilinear", align_corners=True)[:, 0]


def stages(rois: int) -> list[Tensor]:
    torch.manual_seed(0)
    coarse = torch.randn(rois, 1, 4, 4)
    return [
        (F.interpolate(coarse, (s, s), mode="bicubic", align_corners=False)[:, 0] + 0.2 * torch.randn(rois, s, s))
        for s in (14, 28, 56, 112)
    ]


def test_finer_stages_replace_the_boundary_alone() -> None:
    logits = stages(3)
    mask = logits[1]
    for finer in logits[2:]:
        edge = torch.from_numpy(np.stack([literal_boundary((m >= 0).numpy(), 1) for m in mask]))
        keep = resized((~edge).float(), finer.shape[1]) >= 0.5
        mask = torch.where(keep, resized(mask, finer.shape[1]), finer)
    found = composed(logits, 1)
    assert torch.equal(found, mask) and found.shape == (3, 112, 112)
    assert 0.05 < (found == logits[3]).float().mean() < 0.6


def test_fine_stages_learn_near_boundaries() -> None:
    logits = [stage.requires_grad_() for stage in stages(2)]
    targets = [(stage.detach() + 0.3 > 0).float() for stage in stages(2)]
    found = refine_losses(logits, targets, (0.25, 0.5, 0.75, 1.0), 2, 1)
    total = sum(w * F.binary_cross_entropy(logits[k].sigmoid(), targets[k]) for k, w in ((0, 0.25), (1, 0.5)))
    p = logits[1] >= 0
    for k, weight in ((2, 0.75), (3, 1.0)):
        either = [
            literal_boundary(p[i].numpy(), 2) | literal_boundary(targets[k - 1][i].numpy() > 0, 2) for i in range(2)
        ]
        side = logits[k].shape[1]
        learns = resized(torch.from_numpy(np.stack(either)).float(), side) >= 0.5
        total = total + weight * F.binary_cross_entropy(logits[k].sigmoid()[learns], targets[k][learns])
        edge = torch.from_numpy(np.stack([literal_boundary(m.numpy(), 1) for m in p])).float()
        q = torch.where(resized(edge, side) >= 0.5, logits[k], resized(logits[k - 1], side))
        p = q.sigmoid() >= 0.5
    torch.testing.assert_close(found, total)
    found.backward()
    assert 0 < (logits[3].grad != 0).float().mean() < 0.9  # type: ignore[union-attr]


@pytest.mark.parametrize(("classes", "count"), [(80, 6_407_003), (8, 6_372_155)])
def test_the_mask_head_has_the_published_size(classes: int, count: int) -> None:
    head = RefineHead(RefineHeadConfig(), 256, classes, 4)
    assert sum(p.numel() for p in head.parameters()) == count
    assert len(head.state_dict()) == 70


def test_the_semantic_target_is_any_object() -> None:
    masks = np.stack([disc(10, 12, 9, 40, 50), disc(30, 20, 9, 40, 50), np.zeros((40, 50), bool)])
    targets: list[dict[str, Any]] = [{"masks": packed_masks(m)} for m in (masks, masks[2:], masks[:0])]
    found = any_object(targets, [(40, 50)] * 3, (64, 64), torch.zeros(3, 1, 16, 16))
    framed = np.zeros((64, 64))
    framed[:40, :50] = masks.any(0)
    middle = (framed[1::4, 1::4] + framed[1::4, 2::4] + framed[2::4, 1::4] + framed[2::4, 2::4]) / 4
    assert (found[0, 0].numpy() == (middle >= 0.5)).all() and not found[1:].any()


def test_the_best_anchor_learns_the_object_that_claims_it() -> None:
    """One anchor overlaps the first object most, and is at the same time the best that the second one has."""
    objects = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0]])
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [2.0, 0.0, 12.0, 10.0], [100.0, 0.0, 110.0, 10.0]])
    assert match(anchors, objects, 0.7, 0.3, 0.3, seize=True).tolist() == [0, 1, BACKGROUND]
    assert match(anchors[1:], objects[:1], 0.7, 0.3, 0.7, seize=True).tolist() == [-2, BACKGROUND]
    # Of two objects that claim one anchor the last has it (mmdet); Detectron2 keeps the one it overlaps most.
    assert match(anchors[:1], objects, 0.7, 0.3, 0.3, seize=True).tolist() == [1]
    assert match(anchors[:1], objects, 0.7, 0.3, 0.3).tolist() == [0]


def test_statistics_stay_and_the_scale_learns() -> None:
    config = RefineMaskConfig()
    config.backbone.weights, config.backbone.name, config.backbone.width = "none", "resnet10", 16
    body = RefineMask(config, 2).train().backbone.body
    before = body.bn1.running_mean.clone()
    body(torch.randn(1, 3, 64, 64))[0].sum().backward()
    assert torch.equal(body.bn1.running_mean, before) and body.bn1.weight.grad is not None
