"""Refining masks from anywhere: what comes back, and what stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

import sharpcontour.anymask.by_boxes
from models import Predictor, build_model
from models.fcos.targets import Grid, assign, neighbourhoods, responsible
from sharpcontour import InputError, RefinedModel, SharpContourConfig
from sharpcontour.ipc import PointClassifier
from tests.models.helpers import TINY, H, W, disc, rle_of, scene

CATEGORIES = [{"id": 7, "name": "disc"}, {"id": 9, "name": "ring"}]


@pytest.fixture(params=sorted(TINY))
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return made(request.param)


def made(host: str = "dance") -> Predictor:
    torch.manual_seed(0)
    return Predictor(build_model(TINY[host](), 2, SharpContourConfig()), CATEGORIES, 96, 160)


def image(height: int = H, width: int = W) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def test_the_same_instances_come_back(predictor: Predictor) -> None:
    masks = scene()
    sharp = predictor.refine(image(), masks, scores=[0.5, 0.4, 0.3, 0.2, 0.1], labels=torch.tensor([1, 0, 1, 0, 1]))
    assert sharp.coarse is not None and len(sharp) == len(sharp.coarse) == 5
    assert sharp.size == sharp.coarse.size == (H, W)
    assert np.array_equal(sharp.coarse.masks(), masks)
    assert [len(rings) for rings in sharp.rings] == [2, 2, 1, 0, 1]  # holes and parts
    assert [len(rings[0]) for k, rings in enumerate(sharp.rings) if k in (0, 1, 4)] == [128] * 3
    assert all(ring.dtype == np.float32 for rings in sharp.rings for ring in rings)
    found = sharp.masks()
    for k in (2, 3):  # one pixel, nothing
        assert sharp.rings[k] is sharp.coarse.rings[k] and np.array_equal(found[k], masks[k])
    assert all(iou(found[k], masks[k]) > 0.8 for k in (0, 1, 4))  # an untrained model moves little
    assert torch.equal(sharp.scores, torch.tensor([0.5, 0.4, 0.3, 0.2, 0.1])) and sharp.labels.tolist() == [
        1,
        0,
        1,
        0,
        1,
    ]
    entries = sharp.to_coco(12)
    assert [entry["category_id"] for entry in entries] == [1, 0, 1, 0, 1]  # without ids the labels
    assert entries[2]["bbox"] == [71, 33, 1, 1] and coco_mask.area(entries[2]["segmentation"]) == 1
    assert [entry["category_id"] for entry in sharp.to_coco(12, predictor.category_ids)] == [9, 7, 9, 7, 9]


def test_without_scores_and_labels(predictor: Predictor) -> None:
    sharp = predictor.refine(image(), scene()[:2])
    assert sharp.scores.tolist() == [1, 1] and sharp.labels.tolist() == [0, 0]
    for name, kind in (("scores", "number"), ("labels", "whole number")):
        with pytest.raises(InputError, match=rf"{name} must be one {kind} for each of the 2 masks; .* \(1,\)"):
            predictor.refine(image(), scene()[:2], **{name: [1]})
        for wrong in (["cup", "saucer"], [None, None], [1, [2]], {"a": 1}, np.array(["a" * 99, "b"])):
            with pytest.raises(
                InputError, match=rf"{name} must be one {kind} for each of .* or left out; not "
            ) as told:
                predictor.refine(image(), scene()[:2], **{name: wrong})
            assert "\n" not in str(told.value)
    for wrong in ([1.7, 2], [float("nan"), 1], [float("inf"), 1]):
        with pytest.raises(InputError, match=r"labels must be one whole number .*; not "):
            predictor.refine(image(), scene()[:2], labels=wrong)
    assert predictor.refine(image(), scene()[:2], labels=[1.0, 2]).labels.tolist() == [1, 2]


@pytest.mark.parametrize("masks", [[], np.zeros((0, H, W), bool), np.zeros((2, H, W), bool)])
def test_nothing_to_refine(masks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = made()
    monkeypatch.setattr(predictor.model.host, "encode", lambda images: pytest.fail("the network is not needed"))
    sharp = predictor.refine(image(), masks)
    assert len(sharp) == len(masks) and sharp.masks().shape == (len(masks), H, W) and not sharp.masks().any()
    assert sharp.boxes.shape == (len(masks), 4)


def test_images_of_every_form(tmp_path: Path) -> None:
    predictor, pixels, masks = made(), image(), scene()
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    wanted = predictor.refine(pixels, masks).rles()
    rgba = np.dstack([pixels, np.full((H, W), 9, np.uint8)])
    for form in (path, str(path), Image.open(path), rgba, Image.fromarray(rgba), pixels.astype(np.uint16) * 257):
        assert predictor.refine(form, masks).rles() == wanted
        assert predictor.predict(form).rles() == predictor.predict(pixels).rles()
    with pytest.raises(InputError, match=r"masks\[0\]: the mask is 90 x 59 pixels, the image 90 x 60"):
        predictor.refine(path, masks[:, 1:])


def test_a_model_without_a_refiner_says_so() -> None:
    predictor = Predictor(build_model(TINY["dance"](), 2), CATEGORIES, 96, 160)
    with pytest.raises(InputError, match="this checkpoint has no refiner; train with --refine"):
        predictor.refine(image(), scene())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 30), (2, 3)])
def test_tiny_images(height: int, width: int) -> None:
    masks = np.ones((1, height, width), bool)
    sharp = made().refine(image(height, width), masks)
    assert np.array_equal(sharp.masks(), masks)


def towards(monkeypatch: pytest.MonkeyPatch, x: float, y: float, radius: float) -> None:
    """A classifier that knows the object: a disc in network-input pixels."""

    def classify(self: Any, described: Any, instance: Tensor, points: Tensor) -> Tensor:
        return (points - torch.tensor([x, y])).norm(dim=-1) - radius

    monkeypatch.setattr(PointClassifier, "forward", classify)


@pytest.mark.parametrize(("height", "width"), [(H, W), (4 * H, 4 * W)])  # enlarged for the network, and reduced
def test_coordinates_go_there_and_back(
    predictor: Predictor, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = 96 / H  # pixels of the network input for one of the small image
    towards(monkeypatch, 40 * network, 30 * network, 20 * network)
    predictor.model.refiner.config.evolution.ratio = 0.02
    zoom = height / H
    truth = disc(40 * zoom, 30 * zoom, 20 * zoom, height, width)
    start = disc(41 * zoom, 30 * zoom, 18 * zoom, height, width)
    sharp = predictor.refine(image(height, width), [start, rle_of(start)])
    assert iou(start, truth) < 0.85
    for mask in sharp.masks():
        assert iou(mask, truth) > 0.96


def test_a_hole_moves_into_its_own_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = made()
    network = 96 / H
    towards(monkeypatch, 40 * network, 30 * network, 25 * network)  # inside everywhere here: the hole closes
    predictor.model.refiner.config.evolution.ratio = 0.01
    ring = disc(40, 30, 22) & ~disc(40, 30, 14)
    hole = predictor.refine(image(), ring[None]).rings[0][1]
    assert np.hypot(*(hole - (40, 30)).T).max() < 12


def test_parts_that_grow_together_leave_no_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    def classify(self: Any, described: Any, instance: Tensor, points: Tensor) -> Tensor:
        centres = torch.tensor([[30.0, 30.0], [62.0, 30.0]]) * 1.6
        return (points[..., None, :] - centres).norm(dim=-1).amin(-1) - 18 * 1.6  # two discs that overlap

    monkeypatch.setattr(PointClassifier, "forward", classify)
    predictor = made()
    predictor.model.refiner.config.evolution.ratio = 0.01
    sharp = predictor.refine(image(), (disc(30, 30, 14) | disc(62, 30, 14))[None])
    assert len(sharp.rings[0]) == 1 and (sharp.masks()[0] ^ (disc(30, 30, 18) | disc(62, 30, 18))).sum() < 150


def test_harm_gives_the_given_rings_back(predictor: Predictor) -> None:
    predictor.model.refiner.config.evolution.min_iou = 2.0  # nothing is good enough
    predictor.model.statistics.reset()
    masks = [*scene(), [[10.1, 10.3, 40.7, 12.9, 30.5, 40.1]]]
    sharp = predictor.refine(image(), masks)
    assert sharp.coarse is not None
    assert all(sharp.rings[k] is sharp.coarse.rings[k] for k in range(6))
    assert sharp.rles() == sharp.coarse.rles()
    assert predictor.model.statistics.restored == 4  # the others were never tried


def test_small_parts_of_a_refined_object_stay(predictor: Predictor) -> None:
    mask = disc(40, 30, 20)
    mask[3, 3] = mask[55, 80] = True
    mask[30, 40] = False
    sharp = predictor.refine(image(), mask[None])
    assert sharp.coarse is not None
    same = [a is b for a, b in zip(sharp.rings[0], sharp.coarse.rings[0], strict=True)]
    assert same.count(True) == 3 and same.count(False) == 1
    found = sharp.masks()[0]
    assert found[3, 3] and found[55, 80] and not found[30, 40]


def test_a_pixel_does_not_become_large_by_enlarging_the_image(predictor: Predictor) -> None:
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 4, 5] = True  # 23 square pixels of the network input
    masks[1, 8:10, 8:10] = True
    sharp = predictor.refine(image(20, 30), masks)
    assert sharp.coarse is not None
    assert [a is b for a, b in zip(sharp.rings, sharp.coarse.rings, strict=True)] == [True, False]


def test_what_does_not_move_can_keep_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Carried back, displacements leave alone what evenly spaced vertices would round off."""

    def classify(self: Any, described: Any, instance: Tensor, points: Tensor) -> Tensor:
        distance = (points - torch.tensor([40.0, 30.0]) * 1.6).norm(dim=-1) - 22 * 1.6
        return torch.where(points[..., 0] < 40 * 1.6, distance, 0.0)  # on the right phi is one half: no step

    monkeypatch.setattr(PointClassifier, "forward", classify)
    mask = disc(40, 30, 20)
    mask[10:50:2, 56:] = False  # teeth
    mask = np.stack([mask, disc(40, 30, 20)])
    predictor = made("mask_rcnn")
    predictor.model.refiner.config.evolution.vertices = 48
    right = np.s_[:, :, 44:]
    rounded = predictor.refine(image(), mask).masks()
    assert not np.array_equal(rounded[right], mask[right])
    predictor.model.refiner.config.tracing.carry_back = True
    carried = predictor.refine(image(), mask)
    assert np.array_equal(carried.masks()[right], mask[right])
    assert all(iou(a, b) < 0.99 for a, b in zip(carried.masks(), mask, strict=True))  # the left has grown
    predictor.model.refiner.config.evolution.margin = 1.0  # nothing moves
    still = predictor.refine(image(), mask)
    assert all(a is b for a, b in zip(still.rings, still.coarse.rings, strict=True))
    predictor.model.refiner.config.evolution.resample_iterations = True
    with pytest.raises(InputError, match=r"leave out sharpcontour\.evolution\.resample_iterations"):
        predictor.refine(image(), mask)


def test_instances_come_in_parts_and_the_image_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = [disc(x, 30, 8) for x in range(10, 80, 10)]
    masks.insert(3, np.zeros((H, W), bool))
    boxes = [[x - 9, 20, x + 9, 41] for x in range(5, 85, 10)]
    together = predictor.refine(image(), masks, boxes)
    host, calls = predictor.model.host, []
    for name in ("encode", "describe"):
        method = getattr(host, name)
        monkeypatch.setattr(host, name, lambda *a, m=method, n=name: calls.append((n, *a)) or m(*a))
    monkeypatch.setattr(sharpcontour.anymask.by_boxes, "AT_ONCE", 3)
    parts = predictor.refine(image(), masks, boxes)
    assert [call[0] for call in calls] == ["encode", "describe", "describe", "describe"]
    network = parts.boxes[[0, 1, 2, 4, 5, 6, 7]] * 1.6
    assert torch.allclose(torch.cat([call[2][0] for call in calls[1:]]), network)
    for a, b in zip(together.rings, parts.rings, strict=True):
        assert all(np.allclose(x, y, atol=1e-3) for x, y in zip(a, b, strict=True))
    assert parts.boxes.tolist()[:2] == [[0, 20, 14, 41], [6, 20, 24, 41]]


def test_the_box_steers_the_refinement(predictor: Predictor) -> None:
    with torch.no_grad():
        predictor.model.refiner.classifier.controller.predict.weight.normal_(std=0.3)
    mask = disc(40, 30, 20)[None]
    tight, wide = (predictor.refine(image(), mask, box) for box in (None, [[0, 0, W, H]]))
    assert not np.array_equal(tight.rings[0][0], wide.rings[0][0])


@pytest.mark.parametrize("host", sorted(TINY))
def test_description_has_the_form_of_the_hosts_own(host: str) -> None:
    model = made(host).model
    assert isinstance(model, RefinedModel)
    images = [torch.from_numpy(image(64, 96)).permute(2, 0, 1), torch.from_numpy(image(96, 64)).permute(2, 0, 1)]
    boxes = [torch.tensor([[4.0, 4, 60, 50], [20, 10, 21, 11]]), torch.tensor([[0.0, 0, 64, 96]])]
    with torch.no_grad():
        encoded_images = model.host.encode(images)
        inputs = model.host.describe(encoded_images, boxes)
        _, own = model.host.detect(images)
        empty = model.host.describe(encoded_images, [boxes[0][:0], boxes[0][:0]])
    assert torch.allclose(inputs.fine, own.fine, atol=1e-5) and inputs.stride == own.stride
    assert inputs.image_sizes == own.image_sizes and torch.equal(inputs.boxes, torch.cat(boxes))
    assert inputs.image_index.tolist() == [0, 0, 1] and inputs.contours is None and inputs.soft_masks is None
    assert inputs.feats.shape == (3, *model.host.controller_shape)
    assert empty.feats.shape == (0, *model.host.controller_shape)


def test_the_responsible_location_is_one_that_learns_the_box() -> None:
    grid = Grid.build([(40, 60), (20, 30), (10, 15), (5, 8), (3, 4)], [8, 16, 32, 64, 128], torch.device("cpu"))
    bounds = torch.tensor([-1.0, 64, 128, 256, 512, 1e8])
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(60, 2, generator=generator) * torch.tensor([480.0, 320.0])
    half = torch.rand(60, 2, generator=generator) * 120 + 12
    boxes = torch.cat([centre - half, centre + half], 1).clamp(min=0).minimum(torch.tensor([480.0, 320, 480, 320]))
    location = responsible(grid, boxes, bounds)
    learns = 0
    for box, index in zip(boxes, location.tolist(), strict=True):
        middle = ((box[:2] + box[2:]) / 2)[None]
        far = (grid.points - middle).norm(dim=1)
        far[grid.level != grid.level[index]] = torch.inf
        assert far[index] == far.min()
        learns += int(assign(grid, box[None], middle, 1.5, bounds)[index] == 0)
    assert learns > 54  # all but those whose location's distance lies beyond the level's limit
    limits = torch.tensor([[100.0, 100, 228, 140], [100, 100, 229, 140]])  # half of the longer side: 64, and more
    assert grid.level[responsible(grid, limits, bounds)].tolist() == [0, 1]


def test_dance_describes_a_box_by_the_tower_at_its_location() -> None:
    host = made().model.host
    images, box = [torch.from_numpy(image(64, 96)).permute(2, 0, 1)], torch.tensor([[30.0, 10, 70, 40]])
    with torch.no_grad():
        feats = host.describe(host.encode(images), [box]).feats
        pyramid = host.backbone(host.batch(images)[0])
        found = host.detector([pyramid[level] for level in host.detector_levels])
        nearest = (found.grid.points - torch.tensor([50.0, 25.0])).norm(dim=1)
        nearest[found.grid.level > 0] = torch.inf
        wanted = neighbourhoods(found.towers, found.grid, torch.tensor([0]), nearest.argmin()[None])
    assert torch.allclose(feats, wanted, atol=1e-5) and feats.abs().sum() > 0


def test_refined_predictions_can_be_given_again(predictor: Predictor) -> None:
    first = predictor.refine(image(), scene()[:2])
    again = predictor.refine(image(), first.masks(), first.boxes, scores=first.scores, labels=first.labels)
    assert again.coarse is not None and np.array_equal(again.coarse.masks(), first.masks())
    assert torch.equal(again.boxes, first.boxes)
