"""Backbones, and building, loading and using a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision

import models.backbone
from models import Predictor, build_model, load_model
from models.backbone import Backbone, BackboneConfig, ResNet
from models.dance import DANCE, DanceConfig
from sharpcontour import InputError, SharpContourConfig
from sharpcontour.anymask.network import AnyMaskConfig
from sharpcontour.io.plain import from_dict, to_dict
from tests.models.helpers import TINY, confident, drawn, tiny_config

CATEGORIES = [{"id": 7, "name": "disc"}, {"id": 9, "name": "ring"}]


def checkpoint_of(
    path: Path, refine: bool, name: str = "dance", categories: list[dict[str, Any]] = CATEGORIES
) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(1)
    refiner, host_config = SharpContourConfig(), confident(name)
    model = build_model(host_config, 2, refiner if refine else None).eval()
    data = {"name": "coco", "test_short_side": 96, "test_max_side": 160}
    config = {"model": name, "host": to_dict(host_config), "refine": refine, "sharpcontour": to_dict(refiner)}
    contents = {"model": model.state_dict(), "categories": categories, "step": 3, "config": {**config, "data": data}}
    torch.save(contents, path)
    return path, model


def test_a_model_that_must_be_given_masks_needs_the_refiner() -> None:
    with pytest.raises(InputError, match="model anymask: finds no objects and does nothing without a refiner"):
        build_model(AnyMaskConfig(8, 16, (8, 12, 16)), 1)


def test_the_body_of_a_checkpoint_is_the_hosts(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    keys = ("host.backbone.body.conv1.weight", "refiner.classifier.encoder.backbone.body.conv1.weight")
    for names in (keys, keys[::-1], ("backbone.body.conv1.weight",)):
        torch.save({"model": {key: torch.full((1,), float("refiner" in key)) for key in names}}, path)
        assert models.backbone._file_weights(str(path)) == {"conv1.weight": torch.zeros(1)}


def test_names_of_earlier_versions_are_understood(tmp_path: Path) -> None:
    path, model = checkpoint_of(tmp_path / "c.pt", True)
    state = torch.load(path, weights_only=True)
    old = {"refiner.classifier.encoder.": "refiner.encode.", "refiner.classifier.controller.": "refiner.controller."}
    for new, name in old.items():
        given = [key for key in state["model"] if key.startswith(new)]
        assert given
        for key in given:
            state["model"][name + key.removeprefix(new)] = state["model"].pop(key)
    torch.save(state, path)
    loaded = load_model(path, "cpu").model.state_dict()
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(value, loaded[key]) for key, value in model.state_dict().items())


def test_the_device_is_chosen_as_the_commands_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = checkpoint_of(tmp_path / "c.pt", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(InputError, match="this machine has no CUDA device"):
        load_model(path, "cuda")
    moved: list[torch.device] = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: moved.append(device) or self)
    load_model(path)
    assert moved == [torch.device("mps")]


def image_of(height: int = 96, width: int = 128) -> np.ndarray:
    return drawn(3, 2, height, width)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext101_32x8d"])
def test_bodies_are_torchvisions(name: str, tmp_path: Path) -> None:
    reference = torchvision.models.get_model(name, weights=None).eval()
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    body = ResNet(BackboneConfig(name, weights=str(tmp_path / "weights.pth"), norm="bn")).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        mine = body(image)
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(image))))
        for found, layer in zip(
            mine, (reference.layer1, reference.layer2, reference.layer3, reference.layer4), strict=True
        ):
            x = layer(x)
            assert torch.equal(found, x)


def test_pyramid_shapes_and_its_top() -> None:
    backbone = Backbone(BackboneConfig("resnet10", "none", "gn", width=24, fpn_channels=32)).eval()
    pyramid = backbone(torch.randn(2, 3, 96, 160))
    sides = {"p2": (24, 40), "p3": (12, 20), "p4": (6, 10), "p5": (3, 5), "p6": (2, 3), "p7": (1, 2)}
    assert {name: tuple(level.shape) for name, level in pyramid.items()} == {k: (2, 32, *v) for k, v in sides.items()}
    top = backbone.fpn.extra_blocks
    assert torch.equal(pyramid["p6"], top.p6(pyramid["p5"]))
    assert torch.equal(pyramid["p7"], top.p7(pyramid["p6"].relu()))


def test_the_stride_moves_to_the_first_convolution() -> None:
    body = ResNet(BackboneConfig("resnet50", "none", stride_in_1x1=True))
    assert body.layer2[0].conv1.stride == (2, 2) and body.layer2[0].conv2.stride == (1, 1)
    assert body.layer1[0].conv1.stride == (1, 1)


@pytest.mark.parametrize("freeze_at", [0, 2, 5])
def test_frozen_stages(freeze_at: int, tmp_path: Path) -> None:
    torch.save({"model": torchvision.models.resnet18().state_dict()}, tmp_path / "weights.pth")
    config = BackboneConfig("resnet18", str(tmp_path / "weights.pth"), "bn", freeze_at)
    body = ResNet(config).train()
    stages = [body.bn1, body.layer1, body.layer2, body.layer3, body.layer4]
    trains = [any(p.requires_grad for p in stage.parameters()) and stage.training for stage in stages]
    assert trains == [i >= freeze_at for i in range(5)]
    assert all(p.requires_grad for p in ResNet(BackboneConfig("resnet18", "none", "bn", freeze_at)).parameters())


def test_frozen_norms_take_the_statistics_of_their_weights(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18()
    reference(torch.randn(4, 3, 64, 64))  # statistics other than 0 and 1
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    body = ResNet(BackboneConfig("resnet18", str(tmp_path / "weights.pth"))).train()
    image = torch.randn(1, 3, 64, 64)
    reference.eval()
    x = reference.layer1(reference.maxpool(reference.relu(reference.bn1(reference.conv1(image)))))
    assert torch.allclose(body(image)[0], x, atol=1e-4)


@pytest.mark.parametrize("refine", [False, True])
def test_a_body_out_of_a_checkpoint_is_frozen_as_the_original(refine: bool, tmp_path: Path) -> None:
    """Weights that were converted: who goes on training the host keeps the stages frozen that were."""
    config = tiny_config()
    model = build_model(config, 2, SharpContourConfig() if refine else None)
    torch.save({"model": model.state_dict(), "config": {}, "categories": [], "step": 0}, tmp_path / "converted.pt")
    config.backbone.weights = str(tmp_path / "converted.pt")
    config.backbone.width = 64  # the size that published weights have
    with pytest.raises(InputError, match=r"converted.pt: size mismatch"):
        Backbone(config.backbone)
    config.backbone.width = 16
    body = Backbone(config.backbone).body
    given = (model.host if refine else model).backbone.body
    assert all(torch.equal(value, body.state_dict()[key]) for key, value in given.state_dict().items())
    learn = [any(p.requires_grad for p in stage.parameters()) for stage in (body.conv1, body.layer1, body.layer2)]
    assert learn == [False, False, True]


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(torchvision.models.resnet34().state_dict(), path)
    with pytest.raises(InputError, match=r"weights.pth.*resnet18"):
        ResNet(BackboneConfig("resnet18", str(path)))
    path.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"weights.pth: cannot be read"):
        ResNet(BackboneConfig("resnet18", str(path)))
    torch.save(torch.zeros(2), path)
    with pytest.raises(InputError, match=r"weights.pth: holds no weights by name"):
        ResNet(BackboneConfig("resnet18", str(path)))
    with pytest.raises(InputError, match=r"absent.pth"):
        ResNet(BackboneConfig("resnet18", str(tmp_path / "absent.pth")))


def test_offline_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", offline)
    with pytest.raises(InputError, match=r"cannot download .*resnet18.*https://.*backbone.weights") as error:
        ResNet(BackboneConfig("resnet18"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        (BackboneConfig("resnet10"), "no ImageNet weights"),
        (BackboneConfig(norm="gn"), "no ImageNet weights"),
        (BackboneConfig(name="vgg"), "valid: resnet10"),  # type: ignore[arg-type]
        (BackboneConfig(norm="layer"), "valid: frozen_bn"),  # type: ignore[arg-type]
        (BackboneConfig(fpn_norm="frozen_bn"), "valid: none, bn, sync_bn, gn"),  # type: ignore[arg-type]
        (BackboneConfig(freeze_at=9), "freeze_at"),
    ],
)
def test_wrong_choices_are_named(config: BackboneConfig, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        models.backbone.ResNet(config)


def test_sizes_that_do_not_go_together_are_named() -> None:
    config = tiny_config()
    config.vertices = 15
    with pytest.raises(InputError, match=r"15.*16 at least"):
        DANCE(config, 2)
    config = tiny_config()
    config.fcos.size_limits = (32.0, 64.0)
    with pytest.raises(InputError, match="must be 4 sizes, not 2"):
        DANCE(config, 2)


def test_config_survives_its_plain_form() -> None:
    config = tiny_config()
    assert from_dict(DanceConfig, to_dict(config)) == config
    assert from_dict(DanceConfig, {}).fcos.extreme_points


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("name", sorted(TINY))
def test_a_checkpoint_round_trip(name: str, refine: bool, tmp_path: Path) -> None:
    path, model = checkpoint_of(tmp_path / "model.pt", refine, name)
    predictor = load_model(path, "cpu")
    assert predictor.class_names == ["disc", "ring"] and predictor.category_ids == [7, 9]
    assert not predictor.model.training
    image = image_of()
    found = predictor.predict(image)
    expected = model([torch.from_numpy(image).permute(2, 0, 1)])[0]
    assert len(found) == len(expected) > 0 and (found.coarse is not None) == refine
    assert torch.equal(found.scores, expected.scores) and torch.equal(found.boxes, expected.boxes)
    assert found.rles() == expected.rles()


def test_predictions_are_in_the_pixels_of_the_image(tmp_path: Path) -> None:
    path, model = checkpoint_of(tmp_path / "model.pt", refine=False)
    predictor = load_model(path, "cpu")
    small = image_of()
    found = predictor.predict(np.ascontiguousarray(small.repeat(2, 0).repeat(2, 1)))  # shrunk to 96 x 128 again
    expected = model([torch.from_numpy(small).permute(2, 0, 1)])[0]
    assert found.size == (192, 256)
    assert (found.boxes[:, 2] <= 256).all() and found.boxes[:, 2].max() > 128
    assert torch.allclose(found.boxes[:3], expected.boxes[:3] * 2, atol=4)


@pytest.mark.parametrize(
    ("image", "hint"),
    [
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8, 5), np.uint8), r"\(8, 8, 5\)"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        ([[1, 2], [3]], "list"),
        (None, "NoneType"),
        ("absent.png", "absent.png: no such image"),
    ],
)
def test_images_of_the_wrong_kind_are_refused(image: Any, hint: str) -> None:
    predictor = Predictor(DANCE(tiny_config(), 2), CATEGORIES, 96, 160)
    with pytest.raises(InputError, match=hint):
        predictor.predict(image)


def test_broken_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent.pt: no such checkpoint"):
        load_model(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(InputError, match=r"text.pt: refused, it is no checkpoint"):
        load_model(tmp_path / "text.pt")
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    with pytest.raises(InputError, match=r"tensor.pt: no checkpoint of this project \(it lacks model"):
        load_model(tmp_path / "tensor.pt")
    torch.save({"model": {}}, tmp_path / "bare.pt")
    with pytest.raises(InputError, match=r"bare.pt: no checkpoint of this project \(it lacks config"):
        load_model(tmp_path / "bare.pt")
    path, _ = checkpoint_of(tmp_path / "model.pt", refine=False)
    contents = torch.load(path, weights_only=True)
    contents["config"]["host"]["channels"] = 64
    torch.save(contents, path)
    with pytest.raises(InputError, match=r"model.pt: weight \S+ has another shape"):
        load_model(path)
    contents["config"]["model"] = "yolo"
    torch.save(contents, path)
    with pytest.raises(InputError, match=r"model.pt: unknown model 'yolo'"):
        load_model(path)
