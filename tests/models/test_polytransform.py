"""PolyTransform: its loss, what it learns from, and that it learns to bring contours back."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from eval.diagnostics.study import refinement_study
from eval.diagnostics.timing import Pipeline
from models import Predictor, build_model
from models.polytransform import CropNetwork, PolyTransform, VertexTransformer, matched, polygon_loss
from sharpcontour.config import ClassifierConfig, SharpContourConfig, TransformerConfig
from sharpcontour.contours.types import Contours
from sharpcontour.errors import InputError
from sharpcontour.host import RefinerInputs
from sharpcontour.refined_model import RefinedModel
from tests.models.helpers import TINY
from tests.sharpcontour.test_refiner import ShiftedHost, batch

SMALL = TransformerConfig(width=32, layers=1, heads=2)


def config(**more: Any) -> SharpContourConfig:
    kind = ClassifierConfig(output="polygon")
    return SharpContourConfig(classifier=kind, transformer=SMALL, train_host=False, **more)


def circle(radius: float, count: int, x: float = 0.0) -> Tensor:
    angle = torch.arange(count) * (2 * math.pi / count)
    return torch.stack([x + radius * angle.cos(), radius * angle.sin()], 1)


def test_the_loss_is_the_chamfer_distance_and_the_spread_of_the_edges() -> None:
    outline = circle(10, 2000)[None]
    one = torch.zeros(1, dtype=torch.int64)
    assert polygon_loss(circle(10, 256)[None], one, outline, 1, 1.0) < 0.05
    assert polygon_loss(circle(12, 256)[None], one, outline, 1, 1.0) == pytest.approx(4, abs=0.05)  # there and back
    uneven = torch.cat([circle(10, 256)[:128:2], circle(10, 256)[128:]])
    one_way = polygon_loss(uneven[None], one, outline, 1, 0.0)
    assert polygon_loss(uneven[None], one, outline, 1, 1.0) > one_way + 0.05


def test_an_outline_may_belong_to_several_rings() -> None:
    both = torch.cat([circle(5, 500), circle(5, 500, x=40)])
    rings = torch.stack([circle(5, 128), circle(5, 128, x=40)])
    instance = torch.zeros(2, dtype=torch.int64)
    assert polygon_loss(rings, instance, both.expand(2, -1, -1), 1, 0.0) < 0.1
    # Of the half that nothing covers, points are 30 to 40 away.
    assert polygon_loss(rings[:1], instance[:1], both[None], 1, 0.0) > 15


def inputs_of(boxes: Tensor, image_index: Tensor, rings: list[int]) -> RefinerInputs:
    instance = torch.tensor(rings)
    hole = torch.zeros(len(rings), dtype=torch.bool)
    contours = Contours(torch.rand(len(rings), 8, 2), instance, hole, [[] for _ in boxes])
    return RefinerInputs(
        torch.zeros(2, 8, 4, 4), 4, boxes, image_index, torch.zeros(len(boxes), 8, 3, 3), [(9, 9)] * 2, None, contours
    )


def test_it_learns_from_detections_that_have_found_an_object() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 9], [20, 20, 40, 40]])
    inputs = inputs_of(boxes, torch.tensor([0, 0, 1, 1]), [0, 0, 1, 2, 3])
    targets: list[Any] = [
        {"boxes": torch.tensor([[0.0, 0, 10, 11]])},
        {"boxes": torch.tensor([[50.0, 50, 60, 60], [21, 20, 40, 40]])},
    ]
    found = matched(inputs, targets)
    assert found.target_index is not None and found.contours is not None and inputs.contours is not None
    assert found.target_index.tolist() == [0, 2] and found.image_index.tolist() == [
        0,
        1,
    ]  # the third one's is elsewhere
    assert torch.equal(found.boxes, boxes[[0, 3]]) and found.contours.instance.tolist() == [0, 0, 1]
    assert torch.equal(found.contours.vertices, inputs.contours.vertices[[0, 1, 4]])
    nothing = matched(inputs, [{"boxes": torch.zeros(0, 4)}] * 2)
    assert len(nothing.boxes) == 0 and len(nothing.contours.vertices) == 0  # type: ignore[union-attr]


def test_instances_are_drawn_with_all_their_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.polytransform.INSTANCES", 1)
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    inputs = inputs_of(boxes, torch.zeros(2, dtype=torch.int64), [0, 0, 1, 1])
    targets: list[Any] = [{"boxes": boxes}, {"boxes": torch.zeros(0, 4)}]
    for _ in range(4):
        found = matched(inputs, targets)
        assert len(found.boxes) == 1 and found.contours is not None and found.contours.instance.tolist() == [0, 0]


def test_the_network_of_the_crops_learns() -> None:
    torch.manual_seed(0)
    model = RefinedModel(
        ShiftedHost(), PolyTransform(replace(config(), transformer=replace(SMALL, crop=64)), 8, (8, 3, 3))
    )
    images, targets = batch(model.train())
    learning = {name: p for name, p in model.refiner.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(learning.values(), 2e-3)
    for _ in range(3):  # the layer behind it begins at 0
        optimizer.zero_grad()
        model(images, targets)["loss_ipc"].backward()
        optimizer.step()
    assert [name for name, p in learning.items() if p.grad is None or not p.grad.any()] == []


def test_it_learns_to_bring_contours_back() -> None:
    torch.manual_seed(0)
    host = ShiftedHost()
    model = RefinedModel(host, PolyTransform(config(), 8, (8, 3, 3))).train()
    images, targets = batch(model)
    for image in images:
        image.fill_(40)
        image[:, 10:38, 10:38] = 200
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 2e-3)
    losses = []
    for _ in range(150):
        loss = model(images, targets)["loss_ipc"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    assert all(p.grad is None for p in host.parameters())
    model.eval()
    detections = model.detect(images, trace=True)
    assert all(d.steps is not None and len(d.steps) == 2 for d in detections)  # it moves once


def test_a_batch_without_an_object_has_a_gradient_all_the_same() -> None:
    model = RefinedModel(ShiftedHost(), PolyTransform(config(), 8, (8, 3, 3))).train()
    images, targets = batch(model)
    for target in targets:
        target["boxes"] = target["boxes"] + 500
    loss = model(images, targets)["loss_ipc"]
    loss.backward()
    assert loss == 0 and all(p.grad is not None for p in model.refiner.parameters())


def test_a_crop_shows_its_instance_alone() -> None:
    """Features come from the box and a tenth around it, wherever it lies."""
    torch.manual_seed(0)
    network = CropNetwork(64, 8).eval()
    image = torch.randint(0, 255, (3, 96, 128), dtype=torch.uint8)
    other = image.roll((16, 32), (1, 2))
    box, moved = torch.tensor([[20.0, 20, 60, 50]]), torch.tensor([[52.0, 36, 92, 66]])
    maps, windows = network([image, other], torch.cat([box, moved]), torch.tensor([0, 1]))
    assert maps.shape == (2, 8, 16, 16) and windows[0].tolist() == [16, 17, 64, 53]
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-4, atol=1e-4)
    image[:, :16] = 0
    torch.testing.assert_close(network([image], box, torch.tensor([0]))[0], maps[:1], rtol=1e-4, atol=1e-4)


def test_places_in_a_crop_are_those_of_the_image() -> None:
    """A map that tells the place in the crop, read at vertices, tells where these lie on the image."""
    sizes = replace(SMALL, crop=64)
    network = VertexTransformer(ClassifierConfig(), 8, (8, 3, 3), transformer=sizes)
    boxes = torch.tensor([[20.0, 20, 60, 50]])
    inputs = replace(inputs_of(boxes, torch.zeros(1, dtype=torch.int64), [0]), images=[torch.zeros(3, 96, 128)])
    scene = network.describe(inputs)
    points = torch.tensor([[[16.0, 17.0], [40.0, 35.0], [64.0, 53.0]]])
    own = (points - scene.origin) * scene.scale
    torch.testing.assert_close(own, torch.tensor([[[0.0, 0.0], [32.0, 32.0], [64.0, 64.0]]]))


@pytest.mark.parametrize("crop", [0, 64])
@pytest.mark.parametrize("name", ["mask_rcnn", "condinst", "dance"])
def test_it_stands_behind_every_kind_of_host(name: str, crop: int) -> None:
    torch.manual_seed(0)
    model = build_model(TINY[name](), 2, replace(config(), transformer=replace(SMALL, crop=crop)))
    assert isinstance(model, RefinedModel) and isinstance(model.refiner, PolyTransform)
    model.eval()
    image = torch.randint(0, 255, (3, 96, 128), dtype=torch.uint8)
    (found,) = model([image])
    assert found.coarse is not None and len(found) == len(found.coarse)
    predictor = Predictor(model, [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], 96, 128)
    mask = np.zeros((1, 96, 128), bool)
    mask[0, 20:60, 30:90] = True
    assert len(predictor.refine(image.permute(1, 2, 0).numpy(), mask)) == 1
    found = refinement_study(model, [(image, mask, torch.zeros(1, dtype=torch.int64))])
    assert found["all"] == 1 and len(found["ideal28"]) == 2
    png = cv2.imencode(".png", image.permute(1, 2, 0).numpy())[1].tobytes()
    assert len(Pipeline(predictor)(png, refine=True)) == len(Pipeline(predictor)(png, refine=False))


def test_the_host_must_be_finished() -> None:
    with pytest.raises(InputError, match=r"finished host: .* sharpcontour\.train_host=false train\.init_from=RUN"):
        build_model(TINY["mask_rcnn"](), 2, replace(config(), train_host=True))
    with pytest.raises(InputError, match=r"width=30 must be a multiple of its heads, 4"):
        build_model(TINY["mask_rcnn"](), 2, replace(config(), transformer=TransformerConfig(width=30)))
    with pytest.raises(InputError, match=r"crop=40 must be a multiple of 32"):
        build_model(TINY["mask_rcnn"](), 2, replace(config(), transformer=TransformerConfig(crop=40)))
