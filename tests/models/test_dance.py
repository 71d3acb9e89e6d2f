"""DANCE: losses by hand, gradients, empty images, detections, and learning two images by heart."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import build_model
from models.backbone import BackboneConfig
from models.dance import DANCE, DanceConfig
from models.dance.model import edge_loss
from models.dance.network import ContourBranch
from models.layers import group_norm
from sharpcontour import SharpContourConfig
from tests.models.helpers import drawn, prepared, tiny_config


def reached(module: nn.Module) -> bool:
    return any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_published_size() -> None:
    branch = ContourBranch(DanceConfig(backbone=BackboneConfig(weights="none")))
    assert sum(p.numel() for p in branch.parameters()) == 11_731_720
    assert sum(p.numel() for p in branch.merge.parameters()) == 4_132_352
    assert sum(p.numel() for p in branch.snakes[0].parameters()) == 1_939_394
    assert len(branch.state_dict()) == 232
    assert [m.num_groups for m in branch.attender if isinstance(m, nn.GroupNorm)] == [4, 4]


def test_edge_loss_by_hand() -> None:
    edges = torch.full((2, 1, 1, 2), 0.5)  # 4 x 8 px
    one = torch.zeros(4, 6, dtype=torch.uint8)  # two columns are padding
    one[1, :5] = 1
    nothing = torch.zeros(4, 8, dtype=torch.uint8)
    # 2 * 5 * 0.5 / (24 * 0.25 + 5); without edges the loss is 1
    expected = (1 - 5 / (11 + 1e-4) + 1) / 2
    assert edge_loss(edges, [one, nothing]) == pytest.approx(expected)


def test_first_step_moves_by_at_most_a_box_side_and_later_ones_by_the_attended_share() -> None:
    config = tiny_config()
    branch = ContourBranch(config).eval()
    for snake in branch.snakes:
        nn.init.constant_(snake.offset.bias, 20.0)  # tanh = 1
    maps = torch.zeros(1, 1 + config.channels, 8, 8)
    maps[:, 0] = 0.25
    start = torch.tensor([[[4.0, 4.0], [12.0, 4.0], [12.0, 12.0], [4.0, 12.0]]]).repeat_interleave(8, 1)
    sides = torch.tensor([[8.0, 6.0]])
    one, two, three = branch.deform(maps, torch.tensor([0]), start, sides)
    assert torch.allclose(one - start, sides[:, None].expand_as(start))
    assert torch.allclose(two - one, 0.25 * sides[:, None].expand_as(start))
    assert torch.allclose(three - two, 0.25 * sides[:, None].expand_as(start))


def test_every_loss_reaches_what_it_should() -> None:
    host = DANCE(tiny_config(), 2)
    images, targets = prepared(host, 2, 1)
    parts = {"snake0": host.branch.snakes[0], "snake1": host.branch.snakes[1], "snake2": host.branch.snakes[2]}
    parts |= {"attender": host.branch.attender, "predictor": host.branch.predictor, "merge": host.branch.merge}
    parts |= {"features": host.branch.features, "detector": host.detector, "body": host.backbone.body}
    for module in (*host.branch.snakes, host.branch.features):  # larger, lest gradients vanish in rounding
        for layer in module.modules():
            if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
                nn.init.normal_(layer.weight, std=0.1)
    shared = {"merge", "features", "body"}
    expected = {
        "loss_stage_0": shared | {"snake0"},
        "loss_stage_1": shared | {"snake0", "snake1", "attender", "predictor"},
        "loss_stage_2": shared | {"snake0", "snake1", "snake2", "attender", "predictor"},
        "loss_edge_det": {"predictor", "merge", "body"},
        "loss_ext_pts": {"detector", "body"},
    }
    losses = host(images, targets)
    for name, wanted in expected.items():
        host.zero_grad()
        losses[name].backward(retain_graph=True)
        assert {part for part, module in parts.items() if reached(module)} == wanted, name


@pytest.mark.parametrize("counts", [(2, 1), (2, 0), (0, 0), (0,)])
@pytest.mark.parametrize("refine", [False, True])
def test_every_parameter_gets_a_finite_gradient(counts: tuple[int, ...], refine: bool) -> None:
    model = build_model(tiny_config(), 2, SharpContourConfig() if refine else None)
    losses = model(*prepared(model, *counts))
    total = sum(value for name, value in losses.items() if name.startswith("loss"))
    assert isinstance(total, Tensor) and torch.isfinite(total)
    total.backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not missing
    if not any(counts):
        zero = ("loss_fcos_loc", "loss_fcos_ctr", "loss_ext_pts", "loss_stage_0", "loss_stage_1", "loss_stage_2")
        assert all(losses[name] == 0 for name in zero)


def test_objects_in_several_pieces_train_the_detector_alone() -> None:
    host = DANCE(tiny_config(), 2)
    image, target = drawn(0, 1)
    target["polygon_parts"][:] = 2
    losses = host([image], [host.target_builder(target, np.random.default_rng(0))])
    assert losses["loss_stage_0"] == 0 and losses["loss_fcos_loc"] > 0


def test_instances_for_the_refiner() -> None:
    config = tiny_config()
    config.fcos.max_positives = 6
    host = DANCE(config, 2)
    images, targets = prepared(host, 2, 1)
    _, inputs = host.losses(images, targets)
    assert inputs.target_index is not None
    assert inputs.fine.shape == (2, host.fine_channels, 24, 32) and inputs.stride == 4
    assert len(inputs.boxes) == len(inputs.image_index) == len(inputs.target_index) == 6
    assert inputs.feats.shape == (6, *host.controller_shape) and inputs.feats.requires_grad
    assert inputs.image_sizes == [(96, 128), (80, 100)] and not inputs.boxes.requires_grad
    assert torch.equal(inputs.image_index, (inputs.target_index == 2).long())


def test_detections_of_random_weights_are_sound() -> None:
    host = DANCE(tiny_config(), 2).eval()
    nn.init.constant_(host.detector.head.cls_logits.bias, 0.0)
    images, _ = prepared(host, 2, 1)
    found, inputs = host.detect(images)
    assert inputs.contours is not None
    assert [d.size for d in found] == [(96, 128), (80, 100)]
    assert len(inputs.contours.vertices) == len(inputs.boxes) == sum(map(len, found)) > 2
    assert inputs.feats.shape == (len(inputs.boxes), *host.controller_shape)
    for detections in found:
        assert 0 < len(detections) <= 100 and detections.boxes.device.type == "cpu"
        assert detections.masks().shape == (len(detections), *detections.size)
        assert all(len(rings) == 1 and rings[0].shape == (196, 2) for rings in detections.rings)
        assert all(np.isfinite(rings[0]).all() for rings in detections.rings)
        assert detections.labels.max() < 2 and (detections.scores.diff() <= 0).all()
    assert torch.equal(inputs.image_index.bincount(), torch.tensor([len(d) for d in found]))


def test_no_detections() -> None:
    host = DANCE(tiny_config(), 2).eval()
    nn.init.constant_(host.detector.head.cls_logits.bias, -20.0)
    images, _ = prepared(host, 2, 1)
    found, inputs = host.detect(images)
    assert [len(d) for d in found] == [0, 0] and inputs.feats.shape == (0, *host.controller_shape)
    assert found[0].boxes.shape == (0, 4) and found[0].masks().shape == (0, 96, 128)
    model = build_model(tiny_config(), 2, SharpContourConfig()).eval()
    model.host.detector.head.cls_logits.bias.data.fill_(-20.0)
    assert [len(d) for d in model(images)] == [0, 0]


def test_a_batch_gives_what_its_images_give_alone() -> None:
    host = DANCE(tiny_config(), 2).eval()
    host.detector.head.cls_logits.bias.data.fill_(0.0)
    images = prepared(host, 2, 1, 3)[0][::2]  # two of one size: padding enters the GroupNorms of the heads
    together = host(images)
    for image, found in zip(images, together, strict=True):
        alone = host([image])[0]
        assert torch.allclose(alone.boxes, found.boxes, atol=1e-3)
        assert np.allclose(np.array(alone.rings), np.array(found.rings), atol=1e-2)


def test_images_are_normalised_then_padded() -> None:
    config = tiny_config()
    config.backbone.channel_order, config.backbone.pixel_std = "bgr", (2.0, 4.0, 8.0)
    host = DANCE(config, 2)
    image = torch.randint(0, 256, (3, 40, 70), dtype=torch.uint8)
    batch, sizes = host.batch([image, image[:, :33]])
    assert batch.shape == (2, 3, 64, 96) and sizes == [(40, 70), (33, 70)]
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([2.0, 4.0, 8.0])
    assert torch.allclose(batch[0, :, 5, 6], (image[:, 5, 6].float().flip(0) - mean) / std)
    assert not batch[0, :, 40:].any() and not batch[0, :, :, 70:].any() and not batch[1, :, 33:].any()


def test_bfloat16_autocast() -> None:
    model = build_model(tiny_config(), 2, SharpContourConfig())
    images, targets = prepared(model, 2, 0)
    exact = copy.deepcopy(model)(images, targets)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(images, targets)
        found = model.eval()(images)
    assert all(value.dtype == torch.float32 for value in losses.values())
    for name in ("loss_fcos_cls", "loss_fcos_loc", "loss_stage_0", "loss_edge_det"):
        assert losses[name].item() == pytest.approx(exact[name].item(), rel=0.05)
    assert all(d.boxes.dtype == torch.float32 for d in found)


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (48, 6), (100, 10), (28, 2), (7, 1)])
def test_norms_suit_any_width(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups
