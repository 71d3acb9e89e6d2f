"""DeepSnake: its geometry and targets by hand, gradients through the places that are read, detections."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models import build_model
from models.deepsnake import DeepSnake, DeepSnakeConfig
from models.deepsnake.network import SnakeBranch
from models.snake.network import contour_loss
from models.snake.polygons import diamonds, octagons
from sharpcontour import SharpContourConfig
from sharpcontour.errors import InputError
from tests.models.helpers import confident, drawn, prepared, target_of, tiny_deepsnake

EXTREMES = torch.tensor([[[30.0, 10.0], [10.0, 40.0], [60.0, 90.0], [90.0, 50.0]]])  # box 10..90 x 10..90


def test_published_size() -> None:
    with torch.device("meta"):
        branch = SnakeBranch(DeepSnakeConfig())
    assert sum(p.numel() for p in branch.parameters()) == 9_069_576
    assert len(branch.state_dict()) == 264
    assert sum(p.numel() for p in branch.initial.parameters()) == 1_939_394


def test_diamond_has_its_corners_every_ten_vertices() -> None:
    diamond = diamonds(torch.tensor([[0.0, 20.0, 40.0, 100.0]]), 40)[0]
    assert diamond[::10].tolist() == [[20, 20], [0, 60], [20, 100], [40, 60]]
    assert diamond[5].tolist() == [10, 40]


@pytest.mark.parametrize("from_top", [True, False])
def test_octagon_by_hand(from_top: bool) -> None:
    round_points = [[30, 10], [20, 10], [10, 30], [10, 40], [10, 50], [50, 90]]
    round_points += [[60, 90], [70, 90], [90, 60], [90, 50], [90, 40], [40, 10]]
    ends = [[40, 10], [20, 10], [10, 30], [10, 50], [50, 90], [70, 90], [90, 60], [90, 40]]
    corners = round_points if from_top else ends
    octagon = octagons(EXTREMES, 128, from_top)[0]
    assert octagon.shape == (128, 2)
    assert octagon[0].tolist() == corners[0]
    places = [int((octagon - torch.tensor(corner, dtype=torch.float32)).abs().sum(1).argmin()) for corner in corners]
    assert places == sorted(places)
    assert torch.equal(octagon[places], torch.tensor(corners, dtype=torch.float32))


def test_octagon_of_points_at_the_corners_stays_in_the_box() -> None:
    corner = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [80.0, 40.0], [80.0, 40.0]]])
    octagon = octagons(corner, 128, True)
    assert octagon.amin((0, 1)).tolist() == [0, 0] and octagon.amax((0, 1)).tolist() == [80, 40]
    crossed = octagons(EXTREMES.flip(1), 128, True)  # top below bottom: a network may say so
    assert torch.isfinite(crossed).all()


def test_targets_of_an_image() -> None:
    masks = np.zeros((3, 64, 96), np.uint8)
    masks[0, 10:50, 20:40] = 1
    masks[1, 5:15, 60:90] = 1
    masks[2, 30, 60:90] = 1
    target = target_of(masks, 64, 96)
    target["polygon_parts"][1] = 2
    model = DeepSnake(tiny_deepsnake(), 2)
    found = model.target_builder(target, np.random.default_rng(0))
    assert found["snake_boxes"].tolist() == [[20, 10, 40, 50], [60, 30, 90, 31]]  # the one in two parts is left out
    assert found["snake_extremes"][0].tolist() == [[30, 10], [20, 30], [30, 50], [40, 30]]
    start, goal = found["snake_start"][0], found["snake_goal"][0]
    assert start.shape == goal.shape == (128, 2)
    assert start[0].tolist() == [32.5, 10]
    assert (goal[0] - start[0]).norm() < 1 and (goal - start).norm(dim=1).max() < 12
    on_side = ((goal - torch.tensor([20.0, 10.0])).abs() < 1e-4) | ((goal - torch.tensor([40.0, 50.0])).abs() < 1e-4)
    assert on_side.any(1).all()


def test_targets_without_objects_have_their_shapes() -> None:
    model = DeepSnake(tiny_deepsnake(), 2)
    found = model.target_builder(target_of(np.zeros((0, 32, 32), np.uint8), 32, 32), np.random.default_rng(0))
    assert found["snake_boxes"].shape == (0, 4) and found["snake_extremes"].shape == (0, 4, 2)
    assert found["snake_start"].shape == found["snake_goal"].shape == (0, 128, 2)


def test_what_one_stage_reads_moves_the_stages_before_it() -> None:
    """Nothing is detached: the loss of the last stage reaches the first network through the places read."""
    torch.manual_seed(0)
    branch = SnakeBranch(tiny_deepsnake())
    for snake in branch.snakes:
        torch.nn.init.normal_(snake.offset.weight, std=0.1)
    maps = torch.randn(1, 32, 24, 32, requires_grad=True)
    start = octagons(EXTREMES, 128, True)
    stages = branch.deform(maps, torch.tensor([0]), start)
    through = torch.autograd.grad((stages[2] - stages[1]).square().sum(), branch.snakes[0].offset.weight)[0]
    assert through.abs().max() > 0
    # The second network's own offsets, written out.
    place = stages[0] - stages[0].amin(1, keepdim=True)
    grid = stages[0] / torch.tensor([64.0, 48.0]) - 1
    read = F.grid_sample(maps, grid[None], align_corners=False)[0]
    offset = branch.snakes[1](torch.cat([read.transpose(0, 1), place.transpose(1, 2)], 1)).transpose(1, 2)
    torch.testing.assert_close(stages[1], stages[0] + offset, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("supervision", ["baseline", "original"])
def test_losses_by_hand(supervision: str) -> None:
    torch.manual_seed(0)
    config = tiny_deepsnake()
    config.supervision = supervision  # type: ignore[assignment]
    model = DeepSnake(config, 2)
    images, targets = prepared(model, 2, 1)
    torch.manual_seed(0)
    losses = model(images, targets)
    assert losses.keys() >= {"loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr", "loss_extremes"}
    maps = model.branch(model.backbone(model.batch(images)[0]))
    index = torch.tensor([0, 0, 1])
    boxes, extremes, start, goal = (
        torch.cat([target[f"snake_{key}"] for target in targets]) for key in ("boxes", "extremes", "start", "goal")
    )
    corners = model.branch.extreme_points(maps, index, boxes)
    stages = model.branch.deform(maps, index, start)
    if supervision == "original":
        assert "loss_stage_0" not in losses
        torch.testing.assert_close(losses["loss_contour"], F.smooth_l1_loss(stages[2], goal), rtol=1e-3, atol=1e-5)
        wanted = F.smooth_l1_loss(corners / 4, extremes / 4)
    else:
        shorter = (boxes[:, 2:] - boxes[:, :2]).amin(1, keepdim=True)
        for i, stage in enumerate(stages):
            wanted = 10 / 3 * contour_loss(stage, goal, shorter, 0.11)
            torch.testing.assert_close(losses[f"loss_stage_{i}"], wanted, rtol=1e-3, atol=1e-5)
        wanted = 10 * contour_loss(corners, extremes, shorter, 0.11)
    torch.testing.assert_close(losses["loss_extremes"], wanted, rtol=1e-3, atol=1e-5)


def test_detections_are_one_ring_each_inside_the_image() -> None:
    torch.manual_seed(0)
    model = build_model(confident("deepsnake"), 2, SharpContourConfig()).eval()
    image = drawn(0, 3, 80, 100)[0]
    found = model.host([image])[0]
    assert len(found) > 0 and all(len(rings) == 1 and rings[0].shape == (128, 2) for rings in found.rings)
    points = np.concatenate([rings[0] for rings in found.rings])
    assert points.min() >= 0 and points[:, 0].max() <= 100 and points[:, 1].max() <= 80


def test_no_detections() -> None:
    config = tiny_deepsnake()
    config.fcos.score_threshold = 1.0
    model = build_model(config, 2, SharpContourConfig()).eval()
    assert len(model([drawn(0, 1)[0]])[0]) == 0


def test_vertices_that_do_not_fit_are_told() -> None:
    config = tiny_deepsnake()
    config.initial_vertices = 42
    with pytest.raises(InputError, match="multiple of 4"):
        DeepSnake(config, 2)
    config.initial_vertices = 12
    with pytest.raises(InputError, match="initial_vertices is 12; the circular convolutions need 16"):
        DeepSnake(config, 2)
