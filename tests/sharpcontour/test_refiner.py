"""SharpContour behind a host: gradients, empty batches, joint and alone, do no harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sharpcontour.config import ClassifierConfig, EvolutionConfig, PointConfig, SharpContourConfig
from sharpcontour.contours.harmless import keep_coarse, suspects
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.contours.types import Contours
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.host import RefinerInputs
from sharpcontour.io.plain import from_dict, to_dict
from sharpcontour.refined_model import RefinedModel
from sharpcontour.refiner import SharpContour
from tests.sharpcontour.helpers import packed_masks


class ToyHost(nn.Module):
    """One convolution; every instance is a fixed square of the image."""

    fine_channels, controller_shape = 8, (8, 3, 3)

    def __init__(self, instances: int = 2) -> None:
        super().__init__()
        self.instances = instances
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8))

    @property
    def target_builder(self):
        return pass_on

    def _inputs(self, images: list[Tensor]) -> RefinerInputs:
        fine = self.backbone(torch.stack(images).float() / 255)
        k = self.instances * len(images)
        boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0]]).expand(k, 4)
        index = torch.arange(len(images)).repeat_interleave(self.instances)
        return RefinerInputs(fine, 4, boxes, index, fine[index][:, :, 2:5, 2:5], [(64, 64)] * len(images))

    def losses(self, images, targets):
        inputs = self._inputs(images)
        inputs.target_index = torch.arange(len(inputs.boxes))
        return {"loss_host": inputs.fine.square().mean()}, inputs

    def encode(self, images):
        return self.backbone(torch.stack(images).float() / 255), [(64, 64)] * len(images)

    def describe(self, encoded, boxes):
        fine, sizes = encoded
        index = torch.arange(len(boxes)).repeat_interleave(torch.tensor([len(part) for part in boxes]))
        return RefinerInputs(fine, 4, torch.cat(boxes), index, fine[index][:, :, 2:5, 2:5], sizes)

    def training_instances(self, images, targets):
        return self.losses(images, targets)[1]

    def detect(self, images):
        inputs = self._inputs(images)
        square = torch.tensor([[10.0, 10], [38, 10], [38, 38], [10, 38]])
        from sharpcontour.contours.geometry import resample

        inputs.contours = Contours.from_polygons(resample(square[None], 32).expand(len(inputs.boxes), -1, -1).clone())
        rings = inputs.contours.rings()
        n = self.instances
        found = [
            Detections(inputs.boxes[:n], torch.ones(n), torch.zeros(n).long(), rings[i * n : i * n + n], (64, 64))
            for i in range(len(images))
        ]
        return found, inputs


class ShiftedHost(ToyHost):
    """Its contours are a square, each shifted by some pixels."""

    context_channels = 0

    def detect(self, images):
        found, inputs = super().detect(images)
        assert inputs.contours is not None
        shift = torch.empty(len(inputs.boxes), 1, 2).uniform_(-3, 3)
        inputs.contours = replace(inputs.contours, vertices=inputs.contours.vertices + shift)
        return found, inputs


def pass_on(target, rng):
    return target


def make(instances: int = 2, **settings) -> RefinedModel:
    torch.manual_seed(0)
    config = SharpContourConfig(classifier=ClassifierConfig(controller_width=16), **settings)
    host = ToyHost(instances)
    return RefinedModel(host, SharpContour(config, host.fine_channels, host.controller_shape))


def batch(model: RefinedModel, instances: int = 2) -> tuple[list[Tensor], list[dict]]:
    mask = np.zeros((instances, 64, 64), bool)
    mask[:, 10:38, 10:38] = True
    ring = np.array([[10, 10], [38, 10], [38, 38], [10, 38]], np.float32)
    target = {
        "boxes": torch.tensor([[10.0, 10, 38, 38]]).expand(instances, 4),
        "masks": packed_masks(mask),
        "rings": [[ring]] * instances,
    }
    image = torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8)
    return [image, image], [model.target_builder(dict(target), np.random.default_rng(i)) for i in range(2)]


def test_it_learns_to_bring_contours_back() -> None:
    torch.manual_seed(0)
    config = SharpContourConfig(EvolutionConfig(ratio=0.02), classifier=ClassifierConfig(controller_width=16))
    model = RefinedModel(ShiftedHost(), SharpContour(config, 8, (8, 3, 3))).train()
    images, targets = batch(model)
    for image in images:
        image.fill_(40)
        image[:, 10:38, 10:38] = 200
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(60):
        loss = model(images, targets)["loss_ipc"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = model.eval().detect(images, trace=True)
    wanted = np.zeros((64, 64), bool)
    wanted[10:38, 10:38] = True

    def overlap(step: int) -> float:
        masks = np.concatenate([rings_to_masks(one.steps[step], 64, 64) for one in found]).astype(bool)
        return float(((masks & wanted).sum((1, 2)) / (masks | wanted).sum((1, 2))).mean())

    assert overlap(0) < 0.9 and overlap(-1) > 0.93


def test_joint_loss_reaches_controller_convolution_and_backbone() -> None:
    model = make()
    losses = model(*batch(model))
    assert set(losses) == {"loss_host", "loss_ipc", "ipc_accuracy", "ipc_sharpness"}
    losses["loss_ipc"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.refiner.parameters())
    assert model.host.backbone[0].weight.grad.abs().sum() > 0


def test_settings_for_given_contours_are_refused_by_other_hosts() -> None:
    model = make(points=PointConfig(given=0.3))
    with pytest.raises(InputError, match=r"points\.given is for a host that is given contours"):
        model(*batch(model))
    model = make()
    model.refiner.classifier.config.distance = True
    with pytest.raises(InputError, match=r"classifier\.distance=true is for a host that is given contours"):
        model(*batch(model))


def test_training_alone_leaves_the_host_as_it_is() -> None:
    model = make(train_host=False).train()
    before = {name: value.clone() for name, value in model.host.state_dict().items()}
    losses = model(*batch(model))
    losses["loss_ipc"].backward()
    assert "loss_host" not in losses and all(p.grad is None for p in model.host.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.host.state_dict().items())


@pytest.mark.parametrize("instance_aware", [True, False])
def test_no_instances_still_touches_every_parameter(instance_aware: bool) -> None:
    model = make(0)
    model.refiner = SharpContour(
        SharpContourConfig(classifier=ClassifierConfig(instance_aware=instance_aware)), 8, (8, 3, 3)
    )
    losses = model(*batch(model, 0))
    sum(loss for name, loss in losses.items() if name.startswith("loss")).backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    assert [len(found) for found in model([torch.zeros(3, 64, 64)])] == [0]


def test_vertices_cannot_go_back_to_where_others_were() -> None:
    evolution = EvolutionConfig(min_gain=0.002, resample_iterations=True)
    with pytest.raises(InputError, match=r"min_gain takes vertices back .* leave out .*resample_iterations"):
        make(evolution=evolution)
    model = make(evolution=replace(evolution, min_gain=0.0)).eval()
    model.refiner.config.evolution.min_gain = 0.002  # as --set changes a trained one
    with pytest.raises(InputError, match="min_gain takes vertices back"):
        model.detect(batch(model)[0])


def test_detections_carry_the_coarse_ones_and_the_steps() -> None:
    model = make().eval()
    found = model.detect(batch(model)[0], trace=True)
    assert len(found) == 2 and all(len(f) == 2 and f.coarse is not None and len(f.steps) == 4 for f in found)
    assert found[0].masks().shape == (2, 64, 64)
    entry = found[1].scaled_to((128, 128)).to_coco(7, [3])[0]
    assert entry["image_id"] == 7 and entry["category_id"] == 3 and entry["bbox"] == [16, 16, 64, 64]


def test_statistics_count_contours(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make().eval()
    model.statistics.start()
    with torch.no_grad():
        model(batch(model)[0])
    stats = model.statistics.finish()
    monkeypatch.setattr("sharpcontour.statistics.self_crossing", None)  # costs time: only where it is asked for
    model(batch(model)[0])
    assert model.statistics.contours == 4 and model.statistics.restored == stats["restored"]
    assert stats["contours"] == 4 and len(stats["flip_share"]) == 3 and stats["crossing_before"] == 0
    assert all(0 <= share <= 1 for share in stats["flip_share"] + stats["sharpness"])


def test_collapsed_contours_are_put_back() -> None:
    square = torch.tensor([[[0.0, 0], [20, 0], [20, 20], [0, 20]]])
    contours = Contours.from_polygons(square.expand(3, -1, -1).clone())
    moved = contours.vertices.clone()
    moved[1] = 5.0
    moved[2] += 0.5
    doubtful = suspects(contours, moved, 3, 0.5)
    assert doubtful.tolist() == [False, True, False]
    coarse, refined = contours.rings(), Contours.from_polygons(moved).rings()
    assert keep_coarse(coarse, refined, [(30, 30)] * 3, [1], 0.5) == [1]
    assert np.array_equal(refined[1][0], coarse[1][0])


def test_the_swept_area_bound_never_clears_a_bad_contour() -> None:
    from pycocotools import mask as coco_mask

    from sharpcontour.contours.rasterize import rings_to_rles

    torch.manual_seed(0)
    angle = torch.arange(64) / 64 * 2 * torch.pi
    ring = 50 + 20 * torch.stack([angle.cos(), angle.sin()], -1)
    start = ring.expand(200, -1, -1).clone()
    moved = start + torch.randn(200, 64, 2) * torch.rand(200, 1, 1) * 12
    cleared = ~suspects(Contours.from_polygons(start), moved, 200, 0.5)
    before = rings_to_rles(Contours.from_polygons(start).rings(), 100, 100)
    after = rings_to_rles(Contours.from_polygons(moved).rings(), 100, 100)
    ious = np.array([coco_mask.iou([a], [b], [0])[0, 0] for a, b in zip(after, before, strict=True)])
    assert cleared.any() and (ious[cleared.numpy()] >= 0.5).all()


def test_config_round_trip_and_unknown_keys() -> None:
    config = SharpContourConfig(evolution=EvolutionConfig(ratio=0.006))
    assert from_dict(SharpContourConfig, to_dict(config)) == config
    with pytest.raises(InputError, match=r"evolution\.ratoi"):
        from_dict(SharpContourConfig, {"evolution": {"ratoi": 1.0}})
