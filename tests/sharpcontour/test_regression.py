"""The regression designs of Table 9: they move vertices as told, and learn the way to the boundary."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from sharpcontour.config import ClassifierConfig, PointConfig, SharpContourConfig
from sharpcontour.errors import InputError
from sharpcontour.ipc import parameter_count
from sharpcontour.refined_model import build_refiner
from sharpcontour.refiner import SharpContour
from sharpcontour.regression import MAX_OFFSET, OffsetRegression, regress, regression_loss
from tests.sharpcontour.test_refiner import batch, make

Output = Literal["vector", "distance"]
CENTRE, RADIUS = torch.tensor([50.0, 50.0]), 30.0
UNIT = 0.02 * 60  # of a disc in its box


def circle(radius: float, count: int = 64) -> Tensor:
    angle = torch.arange(count) * (2 * np.pi / count)
    return CENTRE + radius * torch.stack([angle.cos(), angle.sin()], 1)


def config(output: Output) -> SharpContourConfig:
    return SharpContourConfig(classifier=ClassifierConfig(output=output))


def exact(points: Tensor, output: Output, sign: float = 1.0) -> Tensor:
    """What a perfect MLP says of the disc: (R, O, N)."""
    way = points - CENTRE
    length = way.norm(dim=2, keepdim=True)
    outwards = (RADIUS - length) / UNIT
    return (outwards * way / length if output == "vector" else sign * outwards).transpose(1, 2)


@pytest.mark.parametrize("output", ["vector", "distance"])
@pytest.mark.parametrize("hole", [False, True])
def test_vertices_go_where_they_are_told(output: Output, hole: bool) -> None:
    start = torch.stack([circle(26), circle(33)])
    # A disc that is a hole: out of the object is towards its centre.
    sign = -1.0 if hole else 1.0
    course = regress(
        start,
        torch.tensor([hole, hole]),
        torch.tensor([3600.0, 3600.0]),
        torch.tensor([[100.0, 100.0]] * 2),
        lambda points: exact(points, output, sign),
        config(output),
    )
    assert len(course.steps) == 4 and course.sharpness == course.flipped == []
    assert ((course.steps[1] - CENTRE).norm(dim=2) - RADIUS).abs().max() < 0.02
    assert ((course.steps[-1] - CENTRE).norm(dim=2) - RADIUS).abs().max() < 0.02


@pytest.mark.parametrize("output", ["vector", "distance"])
def test_the_right_offsets_have_no_loss(output: Output) -> None:
    torch.manual_seed(0)
    angle = torch.rand(2, 100) * 2 * np.pi
    origins = CENTRE + RADIUS * torch.stack([angle.cos(), angle.sin()], 2)
    across = torch.randn(2, 100, 1)
    near = CENTRE + (RADIUS + across) * (origins - CENTRE) / RADIUS
    far = CENTRE.expand(2, 5, 2) + torch.rand(2, 5, 2)
    points = torch.cat([near, far], 1)
    boundary = torch.cat([origins, circle(RADIUS, 256).expand(2, -1, -1)], 1)
    labels = ((points - CENTRE).norm(dim=2) > RADIUS).float()
    right = exact(points, output)
    length = right.norm(dim=1, keepdim=True)
    right = right * (MAX_OFFSET / length.clamp(min=MAX_OFFSET))
    unit = torch.full((2,), UNIT)
    assert regression_loss(right, points, labels, boundary, unit) < 1e-4
    assert regression_loss(-right, points, labels, boundary, unit) > 0.3


@pytest.mark.parametrize(("output", "outputs"), [("vector", 2), ("distance", 1)])
def test_it_is_a_switch_of_the_refiner(output: Output, outputs: int) -> None:
    settings = ClassifierConfig(controller_width=16, output=output)
    assert parameter_count(settings) == 865 + 17 * (outputs - 1)
    model = make()
    model.refiner = OffsetRegression(SharpContourConfig(classifier=settings), 8, (8, 3, 3))
    losses = model(*batch(model))
    losses["loss_ipc"].backward()
    assert losses["loss_ipc"] > 0
    assert all(p.grad is not None for p in model.refiner.parameters())
    found = model.eval().detect(batch(model)[0], trace=True)[0]
    assert found.steps is not None and len(found.steps) == 4
    for before, after in zip(found.steps[0], found.steps[-1], strict=True):  # the MLP's last layer starts at zero
        assert np.allclose(before[0], after[0], atol=2)


def test_a_refiner_refuses_what_is_another_ones() -> None:
    with pytest.raises(InputError, match=r"SharpContour has no classifier\.output=vector"):
        SharpContour(config("vector"), 8, (8, 3, 3))
    with pytest.raises(InputError, match=r"points\.sigma=0: offsets are told in units of it"):
        OffsetRegression(replace(config("vector"), points=PointConfig(sigma=0)), 8, (8, 3, 3))
    with pytest.raises(InputError, match=r"OffsetRegression has no classifier\.output=phi"):
        OffsetRegression(SharpContourConfig(), 8, (8, 3, 3))
    with pytest.raises(InputError, match=r"classifier\.output='polygon' means nothing here; choose distance, phi, vec"):
        build_refiner(SharpContourConfig(classifier=ClassifierConfig(output="polygon")), make().host)
