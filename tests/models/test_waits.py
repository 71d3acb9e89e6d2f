"""How often a GPU would be waited for: operations whose result, or its size, the CPU must know to go on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms, roi_align

from eval.diagnostics.parity import drawn_batch
from models.speed import faster
from models.two_stage import rpn
from models.two_stage.host import RoIs, roi_masks
from models.two_stage.matching import match
from models.zoo import build_model, host_class
from sharpcontour.config import SharpContourConfig
from sharpcontour.errors import InputError
from sharpcontour.loss import total_loss
from tests.sharpcontour.helpers import packed_masks
from tests.waits import Waits


# Of two images. Two, of repeat_interleave, are on the CPU and wait for none; of two-stage models two are suppression.
@pytest.mark.parametrize(
    ("name", "most"),
    [("mask_rcnn", 10), ("pointrend", 9), ("refinemask", 10), ("condinst", 2), ("dance", 2), ("deepsnake", 2)],
)
def test_a_training_step_waits_a_few_times(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpn, "kept_by_nms", partial(_as_on_a_gpu, rpn.kept_by_nms))
    torch.manual_seed(0)
    model: Any = build_model(host_class(name).small(), 10, SharpContourConfig()).train()
    images, targets = drawn_batch(model, 192)
    with Waits() as waits:
        total_loss(model(images, targets)).backward()
    assert 0 < sum(waits.found.values()) <= most, waits.found


def _as_on_a_gpu(function: Callable[..., Tensor], *arguments: Any, together: bool) -> Tensor:
    assert not together
    return function(*arguments, together=True)


@pytest.mark.parametrize("together", [False, True])
def test_suppression_within_levels_is_torchvisions(together: bool) -> None:
    torch.manual_seed(1)
    corner, counts = torch.rand(2, 300, 2) * 60, [200, 90, 10]
    boxes = torch.cat([corner, corner + 5 + 20 * torch.rand(2, 300, 2)], 2)
    boxes[:, ::7] = 0  # points, as unusable boxes are
    scores, level = torch.rand(2, 300), torch.arange(3).repeat_interleave(torch.tensor(counts))
    kept = rpn.kept_by_nms(boxes, scores, counts, 0.5, together)
    for image in range(2):
        usable = (boxes[image] != 0).any(1).nonzero()[:, 0]
        wanted = usable[batched_nms(boxes[image][usable], scores[image][usable], level[usable], 0.5)]
        assert set(kept[image].nonzero()[:, 0].tolist()) - set(range(0, 300, 7)) == set(wanted.tolist())
        assert 50 < len(wanted) < len(usable)


def test_scores_that_are_no_numbers_make_no_proposals() -> None:
    config = rpn.RPNConfig(sizes=(16.0, 32.0))
    model = rpn.RPN(config, 4, [8, 16]).eval()
    found = model([torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 4)], (64, 64))
    found.logits[0, ::3], found.logits[0, 1::3], found.logits[1] = torch.nan, torch.inf, -torch.inf
    proposals = model.propose(found, [(64, 64), (64, 64)])
    assert len(proposals[0]) > 5 and proposals[0].isfinite().all() and len(proposals[1]) == 0


def test_objects_without_a_proposal_are_learned_from_none() -> None:
    assert len(match(torch.zeros(0, 4), torch.tensor([[0.0, 0, 9, 9]]), 0.5, 0.5, claim=0.5, seize=True)) == 0


def test_mask_targets_are_made_of_a_few_objects_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = [np.zeros((count, 40, 48), bool) for count in (5, 0, 3)]
    rng = np.random.default_rng(0)
    targets: list[Any] = []
    for stack in masks:
        for mask in stack:
            x, y = rng.integers(0, 30, 2)
            mask[y : y + rng.integers(3, 20), x : x + rng.integers(3, 20)] = True
        targets.append({"masks": packed_masks(stack)})
    corner = torch.rand(20, 2) * 20
    image_index = torch.tensor([0] * 14 + [2] * 6)
    objects = torch.cat([torch.randint(0, 5, (14,)), torch.randint(5, 8, (6,))])
    rois = RoIs(torch.cat([corner, corner + 10], 1), image_index, objects)
    sizes = [(40, 48)] * 3
    whole = roi_masks(targets, sizes, rois, [7, 14], soft=True)
    dense = torch.from_numpy(np.concatenate(masks)).float()[:, None]
    alone = roi_align(dense, torch.cat([objects[:, None].float(), rois.boxes], 1), 7, 1.0, -1, aligned=False)[:, 0]
    monkeypatch.setattr("models.two_stage.host._AT_ONCE", 2)
    parts = roi_masks(targets, sizes, rois, [7, 14], soft=True)
    assert torch.equal(whole[0], alone) and all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_other_speeds_give_nearly_the_same() -> None:
    torch.manual_seed(0)
    model: Any = build_model(host_class("mask_rcnn").small(), 10, SharpContourConfig()).eval()
    images, _ = drawn_batch(model, 96)
    pixels = model.host.batch(images)[0]
    cpu = torch.device("cpu")
    with torch.no_grad():
        exact = model.host.backbone(pixels)["p2"]
        assert not exact.is_contiguous(memory_format=torch.channels_last)
        for settings, limit in (({"channels_last": True}, 1e-4), ({"amp": "bf16"}, 0.1)):
            with faster(model, cpu, **settings):  # type: ignore[arg-type]
                found = model.host.backbone(pixels)["p2"]
                assert len(model(images)) == len(images)
            assert not torch.is_autocast_enabled("cpu")
            assert found.dtype == (torch.bfloat16 if "amp" in settings else torch.float32)
            assert found.is_contiguous(memory_format=torch.channels_last)
            assert float((found - exact).abs().max() / exact.abs().max()) < limit
    with pytest.raises(InputError, match="TF32"), faster(model, cpu, tf32=True):
        pass
