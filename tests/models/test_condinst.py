"""CondInst: the parts against literal computations, instance by instance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models import build_model
from models.condinst import CondInst, CondInstConfig
from models.condinst.mask_branch import enlarge, semantic_loss
from models.condinst.mask_head import mask_logits, mask_loss, mask_targets, parameter_count
from sharpcontour import SharpContourConfig
from tests.models.helpers import drawn, prepared, target_of, tiny_condinst
from tests.sharpcontour.helpers import packed_masks


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_enlarged_cells_land_on_their_index(factor: int) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 5, 1, dtype=torch.float64)
    out = enlarge(maps, factor)
    assert out.shape == (2, 3, 5 * factor, factor)
    for o in range(5 * factor):
        place = min(max((o - factor // 2) / factor, 0), 4)
        low = int(place)
        value = maps[:, :, low] + (place - low) * (maps[:, :, min(low + 1, 4)] - maps[:, :, low])
        torch.testing.assert_close(out[:, :, o], value.expand(-1, -1, factor))


def literal_logits(features: Tensor, theta: Tensor, point: Tensor, size: float) -> Tensor:
    """One instance, as the paper tells it: its distance from every cell is two more input channels."""
    _, h, w = features.shape
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    away = torch.stack([(point[0] - (8 * column + 4)) / size, (point[1] - (8 * row + 4)) / size])
    x = torch.cat([away.to(features.dtype), features])[None]
    weights, biases = theta[:152], theta[152:]
    x = F.conv2d(x, weights[:80].view(8, 10, 1, 1), biases[:8]).relu()
    x = F.conv2d(x, weights[80:144].view(8, 8, 1, 1), biases[8:16]).relu()
    return enlarge(F.conv2d(x, weights[144:].view(1, 8, 1, 1), biases[16:]), 2)[0, 0]


def instances(count: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    features, theta = torch.randn(8, 12, 16, dtype=dtype), torch.randn(count, 169, dtype=dtype)
    return features, theta, (torch.rand(count, 2) * 90).to(dtype), 64 * 2.0 ** (torch.arange(count) % 5)


def test_heads_at_once_are_heads_one_by_one() -> None:
    features, theta, points, reach = instances(7)
    assert parameter_count(8, 8) == 169
    found = mask_logits(features, theta, points, reach, 8)
    wanted = torch.stack([literal_logits(features, *each) for each in zip(theta, points, reach.tolist(), strict=True)])
    assert found.shape == (7, 24, 32)
    torch.testing.assert_close(found, wanted)


def test_places_keep_their_precision_on_large_maps() -> None:
    features, theta, points, reach = instances(4, torch.float32)
    wide = features[:, :1, :1].repeat(1, 100, 168)
    places = points.new_tensor([[1340.0, 4.0], [4.0, 796.0], [700.0, 400.0], [1300.0, 780.0]])
    found = mask_logits(wide, theta, places, reach, 8)
    wanted = mask_logits(wide.double(), theta.double(), places.double(), reach.double(), 8)
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_places_keep_their_precision_under_autocast() -> None:
    """Heads whose logits are an instance's distance, on the map of an image of 800 x 1344: bf16 was 2 px off."""
    first, second, last = torch.zeros(2, 8, 10), torch.zeros(8, 8), torch.zeros(8)
    for axis in (0, 1):
        first[axis, :2, axis] = torch.tensor([1.0, -1.0])  # ReLU of the distance and of its opposite
    second[0, 0], second[1, 1], last[0], last[1] = 1, 1, 1, -1
    theta = torch.cat([first.flatten(1), torch.cat([second.flatten(), last, torch.zeros(17)]).expand(2, -1)], 1)
    points, reach = torch.tensor([[1203.3, 701.7]]).expand(2, -1), torch.tensor([512.0, 512.0])
    with torch.autocast("cpu", torch.bfloat16):
        found = 512 * mask_logits(torch.zeros(8, 100, 168), theta, points, reach, 8)
    # Cell j of stride 8 stands for 8 j + 4, and lies on index 2 j + 1 of the enlarged map.
    x, y = 1203.3 - (8 * torch.arange(168) + 4), 701.7 - (8 * torch.arange(100) + 4)
    assert found.dtype == torch.float32
    assert (found[0, 1::2, 1::2] - x).abs().max() < 1e-3
    assert (found[1, 1::2, 1::2] - y[:, None]).abs().max() < 1e-3


def test_mask_loss_is_the_mean_dice_of_the_instances() -> None:
    targets = [drawn(0, 2)[1], drawn(1, 3)[1]]
    features, theta, points, reach = instances(6)
    batch = torch.stack([features, features.flip(1)])
    image_index, target_index = torch.tensor([1, 0, 0, 1, 1, 0]), torch.tensor([4, 0, 1, 2, 3, 1])
    found = mask_loss(batch, theta, points, reach, image_index, target_index, targets, 8)
    masks = torch.cat([target["masks"].dense(96, 128)[:, 2::4, 2::4] for target in targets]).double()
    losses = []
    for k, (image, index) in enumerate(zip(image_index.tolist(), target_index.tolist(), strict=True)):
        p, g = literal_logits(batch[image], theta[k], points[k], float(reach[k])).sigmoid(), masks[index]
        losses.append(1 - 2 * (p * g).sum() / ((p**2).sum() + (g**2).sum() + 1e-5))
    torch.testing.assert_close(found, torch.stack(losses).mean())


def test_targets_are_read_at_single_pixels() -> None:
    mask = np.zeros((1, 32, 32), np.uint8)
    mask[0, 2:7, 6] = 1  # on the grid: rows 0 and 1 of column 1
    found = mask_targets(target_of(mask, 32, 32), 8, 8)
    assert found[0].nonzero().tolist() == [[0, 1], [1, 1]]


def test_class_maps_take_the_smallest_object() -> None:
    masks = np.zeros((3, 32, 32), np.uint8)
    masks[0] = 1
    masks[1, 8:24, 8:24] = 1
    masks[2, 8:16, 8:16] = 1
    target = target_of(masks[[1, 0, 2]], 32, 32) | {"labels": torch.tensor([1, 0, 2])}
    wanted = torch.zeros(1, 3, 4, 4)
    classes = torch.zeros(4, 4, dtype=torch.long)
    classes[1:3, 1:3] = 1
    classes[1, 1] = 2
    wanted[0].scatter_(0, classes[None], 1.0)
    assert semantic_loss(200 * wanted - 100, [target], 0.25, 2.0) < 1e-6
    wrong = wanted.clone()
    wrong[0, :, 1, 1] = torch.tensor([0.0, 1.0, 0.0])
    # One of 16 cells misses its class (0.25 of the focal loss) and sees another (0.75).
    torch.testing.assert_close(semantic_loss(200 * wrong - 100, [target], 0.25, 2.0), torch.tensor(100 / 16))
    empty = target_of(np.zeros((0, 32, 32), np.uint8), 32, 32)
    assert semantic_loss(torch.full((1, 3, 4, 4), -100.0), [empty], 0.25, 2.0) == 0


def test_locations_learn_around_the_centre_of_mass() -> None:
    model = CondInst(tiny_condinst(), 2)
    masks = np.zeros((2, 64, 64), np.uint8)
    masks[0, 10, 4:60] = 1
    masks[0, 10:50, 4] = 1
    target = target_of(masks[:1], 64, 64)
    rows, columns = masks[0].nonzero()
    torch.testing.assert_close(model.centres([target])[0][0], torch.tensor([columns.mean(), rows.mean()]).float())
    target["masks"] = packed_masks(masks[1:])
    torch.testing.assert_close(model.centres([target])[0][0], torch.tensor([32.0, 30.0]))


def test_scores_are_cut_by_their_product_with_centreness() -> None:
    torch.manual_seed(0)
    model = CondInst(tiny_condinst(), 2).eval()
    torch.nn.init.normal_(model.detector.head.cls_logits.weight, std=0.3)
    torch.nn.init.normal_(model.detector.head.ctrness.weight, std=0.3)
    assert model.config.fcos.threshold_product and CondInstConfig().fcos.threshold_product
    model.config.fcos.score_threshold, model.config.fcos.max_detections = 0.3, 10_000
    found = model([drawn(0, 2)[0]])[0]
    assert len(found) and found.scores.min() ** 2 > 0.3
    model.config.fcos.threshold_product = False
    assert model([drawn(0, 2)[0]])[0].scores.min() ** 2 < 0.3


@pytest.mark.parametrize(("maps", "stride"), [("c2_p3", 4), ("p3", 8)])
def test_what_the_refiner_reads(maps: Any, stride: int) -> None:
    torch.manual_seed(0)
    config = tiny_condinst()
    config.refiner_maps = maps
    model = build_model(config, 2, SharpContourConfig())
    images, targets = prepared(model, 1, 2)
    inputs = model.host.training_instances(images, targets)
    assert inputs.stride == stride and inputs.fine.shape[2:] == (96 // stride, 128 // stride)
    assert (inputs.context is not None) == (maps == "c2_p3")
    model(images, targets)["loss_ipc"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.refiner.classifier.encoder.parameters())


def test_the_published_model_has_the_published_parts() -> None:
    config = CondInstConfig()
    config.backbone.weights = "none"
    with torch.device("meta"):
        model = CondInst(config, 80)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert CondInst(tiny_condinst(), 2).reach.tolist() == [64, 128, 256, 512, 1024]
    assert shapes["controller.weight"] == (169, 256, 3, 3)
    assert sum(p.numel() for p in model.controller.parameters()) == 389_545
    assert shapes["mask_branch.refine.2.0.weight"] == (128, 256, 3, 3)
    assert shapes["mask_branch.tower.3.0.weight"] == (128, 128, 3, 3)
    assert shapes["mask_branch.output.weight"] == (8, 128, 1, 1)
    assert shapes["backbone.fpn.inner_blocks.0.0.weight"] == (256, 512, 1, 1)  # no P2
    assert not any("semantic" in key for key in shapes)
