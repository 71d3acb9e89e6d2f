"""The point classifier, its controller, its loss and its training points."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpcontour.config import ClassifierConfig, LossConfig, PointConfig
from sharpcontour.ipc import Controller, dynamic_mlp, initial_parameters, layer_sizes, parameter_count, relative_places
from sharpcontour.loss import dynamic_alpha, ipc_loss
from sharpcontour.masks.packed import PackedMasks
from sharpcontour.points import boundary_samples, sample_points
from sharpcontour.sampling import sample_features
from tests.sharpcontour.helpers import packed_masks


@pytest.mark.parametrize(("hidden", "count"), [(16, 865), (8, 305)])
def test_parameter_count(hidden: int, count: int) -> None:
    assert parameter_count(ClassifierConfig(hidden=hidden)) == count


def test_batched_classifier_equals_a_loop_of_linear_layers() -> None:
    config = ClassifierConfig()
    theta = torch.randn(3, 865)
    features, places = torch.randn(3, 16, 7), torch.randn(3, 7, 2)
    logits = dynamic_mlp(theta, features, places, config)[:, 0]
    for k in range(3):
        layers, begin = [nn.Linear(i, o) for i, o in layer_sizes(config)], 0
        with torch.no_grad():
            for layer in layers:
                layer.weight.copy_(theta[k, begin : begin + layer.weight.numel()].view_as(layer.weight))
                begin += layer.weight.numel()
            for layer in layers:
                layer.bias.copy_(theta[k, begin : begin + layer.bias.numel()])
                begin += layer.bias.numel()
        x = torch.cat([places[k], features[k].T], 1)
        for layer in layers[:-1]:
            x = layer(x).relu()
        assert torch.allclose(layers[-1](x)[:, 0], logits[k], atol=1e-4)


@pytest.mark.parametrize("stride", [4, 8])
def test_sampling_a_ramp_returns_the_coordinate(stride: int) -> None:
    h, w = 10, 14
    x = (torch.arange(w) + 0.5) * stride
    y = (torch.arange(h) + 0.5) * stride
    ramp = torch.stack([x.expand(h, w), y[:, None].expand(h, w)])
    fine = torch.stack([ramp, ramp + 1000])
    points = torch.rand(5, 20, 2) * torch.tensor([w - 1.0, h - 1.0]) * stride + stride / 2
    image = torch.tensor([0, 1, 1, 0, 1])
    sampled = sample_features(fine, stride, image, points).transpose(1, 2)
    assert torch.allclose(sampled, points + 1000.0 * image[:, None, None], atol=2e-2)


def test_sampling_at_the_border_repeats_the_outer_cells_of_the_same_image() -> None:
    fine = torch.arange(2 * 12, dtype=torch.float32).view(2, 1, 3, 4)
    corners = torch.tensor([[[-9.0, -9.0], [99.0, 99.0]]]).expand(2, 2, 2)
    sampled = sample_features(fine, 4, torch.tensor([0, 1]), corners)[:, 0]
    assert torch.allclose(sampled, torch.tensor([[0.0, 11], [12, 23]]), atol=1e-4)


def test_places_are_minus_one_to_one_in_the_box() -> None:
    points = torch.tensor([[[10.0, 20.0], [30.0, 60.0], [20.0, 40.0], [40.0, 40.0]]])
    places = relative_places(points, torch.tensor([[10.0, 20.0, 30.0, 60.0]]))
    assert places.tolist() == [[[-1, -1], [1, 1], [0, 0], [2, 0]]]


def test_location_controller_equals_a_dense_convolution() -> None:
    controller = Controller(ClassifierConfig(controller_width=12), (8, 3, 3))
    feature = torch.randn(1, 8, 6, 7)
    first: nn.Linear = controller.hidden[1]
    dense = F.relu(F.conv2d(feature, first.weight.view(12, 8, 3, 3), first.bias, padding=1))
    dense = F.relu(F.conv2d(dense, controller.hidden[3].weight[..., None, None], controller.hidden[3].bias))
    dense = F.conv2d(dense, controller.predict.weight[..., None, None], controller.predict.bias)
    patches = F.unfold(feature, 3, padding=1).view(8, 9, 42).permute(2, 0, 1).reshape(42, 8, 3, 3)
    assert torch.allclose(controller(patches), dense[0].flatten(1).T, atol=1e-5)


def test_roi_controller_and_shared_classifier() -> None:
    controller = Controller(ClassifierConfig(), (32, 14, 14))
    assert controller(torch.randn(2, 32, 14, 14)).shape == (2, 865)
    shared = Controller(ClassifierConfig(instance_aware=False), (32, 14, 14))
    theta = shared(torch.randn(2, 32, 14, 14))
    assert torch.equal(theta[0], theta[1])
    (theta.sum() + 0 * shared.unused()).backward()
    assert all(parameter.grad is not None for parameter in shared.parameters())


def test_weights_of_places_keep_their_precision_under_autocast() -> None:
    """Rounded to bf16, the weights of places would put the boundary elsewhere in training than in evaluation."""
    torch.manual_seed(0)
    controller = Controller(ClassifierConfig(), (8, 3, 3))
    torch.nn.init.zeros_(controller.predict.weight)
    with torch.autocast("cpu", torch.bfloat16):
        theta = controller(torch.randn(2, 8, 3, 3))
    assert torch.equal(theta, controller.predict.bias.expand(2, -1))


def test_every_instance_starts_undecided_with_hidden_layers_alive() -> None:
    torch.manual_seed(0)
    config = ClassifierConfig()
    theta = initial_parameters(config).repeat(1, 1).requires_grad_()
    logits = dynamic_mlp(theta, torch.randn(1, 16, 500), torch.rand(1, 500, 2) * 2 - 1, config)
    assert logits.abs().max() == 0
    (logits * torch.randn_like(logits)).sum().backward()
    assert theta.grad is not None and (theta.grad[0] != 0).sum() > 8  # the output layer can learn at once


def test_loss_by_hand() -> None:
    probability = torch.tensor([0.9, 0.2, 0.3, 0.6])
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0])
    alpha = 0.5
    expected = (
        alpha * 0.1**2 * -math.log(0.9)
        + alpha * 0.8**2 * -math.log(0.2)
        + (1 - alpha) * 0.3**2 * -math.log(0.7)
        + (1 - alpha) * 0.6**2 * -math.log(0.4)
    ) / 4
    assert ipc_loss(probability.logit(), labels, LossConfig()).item() == pytest.approx(expected, rel=1e-5)


def test_alpha_is_the_share_of_the_points_inside() -> None:
    assert dynamic_alpha(torch.tensor([1.0, 0, 0, 0]), LossConfig()).item() == 0.75
    assert dynamic_alpha(torch.ones(8), LossConfig()).item() == pytest.approx(0.05)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_loss_is_finite_for_confident_mistakes(gamma: float) -> None:
    logits = torch.tensor([-200.0, 200.0, 200.0, -200.0], requires_grad=True)
    loss = ipc_loss(logits, torch.tensor([1.0, 0.0, 1.0, 0.0]), LossConfig(gamma=gamma))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def square_object() -> tuple[torch.Tensor, torch.Tensor, PackedMasks]:
    mask = np.zeros((2, 64, 64), bool)
    mask[1, 10:50, 20:40] = True
    mask[0, 0:64, 0:64] = True
    rings = [
        [np.array([[0, 0], [64, 0], [64, 64], [0, 64]], np.float32)],
        [np.array([[20, 10], [40, 10], [40, 50], [20, 50]], np.float32)],
    ]
    boundary = torch.from_numpy(boundary_samples(rings, 256, np.random.default_rng(0)))
    return boundary, torch.tensor([[0.0, 0, 64, 64], [20, 10, 40, 50]]), packed_masks(mask)


def test_training_points_lie_near_the_boundary_and_are_labelled_by_the_mask() -> None:
    torch.manual_seed(0)
    boundary, boxes, masks = square_object()
    points, labels = sample_points(boundary, boxes, masks, torch.tensor([1, 0, 1]), PointConfig(points=200))
    assert points.shape == (3, 200, 2) and labels.shape == (3, 200)
    x, y = points[0].unbind(-1)
    inside = (x >= 20) & (x < 40) & (y >= 10) & (y < 50)
    assert torch.equal(labels[0] == 0, inside)
    outwards = torch.maximum((x - 30).abs() - 10, (y - 30).abs() - 20)[:180].abs()
    assert outwards.max() < 6 and 0.3 < labels[0].mean() < 0.7
    off_image = (points[1] < 0).any(-1) | (points[1] >= 64).any(-1)
    assert off_image.any() and (labels[1][off_image] == 1).all()


@pytest.mark.parametrize(("share", "count"), [(0.4, 80), (1.0, 180)])
def test_the_share_around_given_contours_is_of_all_points_that_are_not_uniform(share: float, count: int) -> None:
    boundary, boxes, masks = square_object()
    far = [np.array([[-500, -500], [-400, -500], [-400, -400]], np.float32)]
    given = torch.from_numpy(boundary_samples([far], 50, np.random.default_rng(1)))
    config = PointConfig(points=200, uniform=0.1, given=share)
    points, labels = sample_points(boundary, boxes, masks, torch.tensor([1]), config, given)
    assert points.shape == (1, 200, 2) and labels.shape == (1, 200)
    assert (points[0, :, 0] < -300).nonzero()[:, 0].tolist() == list(range(count))


def test_boundary_samples_cover_all_rings_by_length() -> None:
    rings = [
        np.array([[0, 0], [30, 0], [30, 30], [0, 30]], np.float32),
        np.array([[50, 0], [60, 0], [60, 10], [50, 10]], np.float32),
    ]
    sample = boundary_samples([rings], 4000, np.random.default_rng(0))[0]
    assert (sample[:, 0] >= 50).mean() == pytest.approx(0.25, abs=0.03)
    assert np.allclose(np.hypot(sample[:, 2], sample[:, 3]), 1, atol=1e-3)


def test_packed_masks_keep_every_pixel() -> None:
    masks = np.random.default_rng(0).random((4, 13, 17)) > 0.8
    masks[2] = False
    packed = packed_masks(masks)
    assert torch.equal(packed.dense(13, 17), torch.from_numpy(masks))
    for k, (x, y, w, h) in enumerate(packed.crops.tolist()):
        assert np.array_equal(packed.crop(k), masks[k, y : y + h, x : x + w])
    both = PackedMasks.cat([packed, packed_masks(np.zeros((0, 9, 9), bool)), packed])
    x, y = torch.meshgrid(torch.arange(17) + 0.5, torch.arange(13) + 0.5, indexing="xy")
    points = torch.stack([x, y], -1).view(1, -1, 2).expand(8, -1, 2)
    inside = both.inside(torch.arange(8), points)
    assert torch.equal(inside.view(8, 13, 17), torch.from_numpy(np.concatenate([masks, masks])))
