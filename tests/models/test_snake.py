"""Circular convolutions, what contours read, and their loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.snake.network import CircularBlock, ContourMap, contour_loss


def test_circular_convolution_equals_a_plain_loop() -> None:
    block = CircularBlock(2, 3, 4, 2).eval()
    x = torch.randn(1, 2, 20)
    expected = torch.zeros(1, 3, 20)
    for p in range(20):
        taps = x[0][:, [(p + 2 * (tap - 4)) % 20 for tap in range(9)]]
        expected[0, :, p] = (block.conv.weight * taps).sum((1, 2)) + block.conv.bias
    expected = F.relu(expected) / np.sqrt(1 + 1e-5)  # the untrained BatchNorm behind it
    assert torch.allclose(block(x), expected, atol=1e-5)


@pytest.mark.parametrize("beyond", ["mirror", "zeros"])
def test_contours_of_all_images_are_read_as_from_their_own_map(beyond: str) -> None:
    maps = torch.randn(3, 4, 6, 8)
    index = torch.tensor([2, 0, 1, 2, 0])
    contours = torch.rand(5, 7, 2) * torch.tensor([52.0, 44.0]) - 10  # the maps cover 32 x 24 px
    found = ContourMap(maps, beyond).read(index, contours)
    mode = "reflection" if beyond == "mirror" else "zeros"
    for k, image in enumerate(index.tolist()):
        grid = contours[k] / torch.tensor([16.0, 12.0]) - 1
        own = F.grid_sample(maps[image : image + 1], grid[None, None], padding_mode=mode, align_corners=False)
        assert torch.allclose(found[k], own[0, :, 0], atol=1e-4)


def test_contour_loss_by_hand() -> None:
    contours = torch.tensor([[[10.0, 10.0], [20.0, 30.0]]])
    goal = torch.tensor([[[11.0, 10.0], [20.0, 50.0]]])
    sides = torch.tensor([[20.0, 40.0]])
    # errors 0.05, 0, 0, 0.5 box sides
    expected = (0.5 * 0.05**2 / 0.11 + 0.5 - 0.055) / 4
    assert contour_loss(contours, goal, sides, 0.11) == pytest.approx(expected)
