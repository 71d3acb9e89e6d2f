"""scripts/convert.py from the foreign file to predictions and to training the refiner alone."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from data.categories import published_categories
from engine.checkpoint import load_matching
from models import build_model, load_model
from models.loading import read_checkpoint
from models.mask_rcnn import MaskRCNNConfig
from sharpcontour import SharpContourConfig
from sharpcontour.io.plain import from_dict
from tests.commands import SCRIPTS, run_script
from tests.models.helpers import drawn, prepared


def convert(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_script("convert.py", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    """torchvision's model with random weights and the epsilon that its trained weights get."""
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91, min_size=128, max_size=192)
    for name, parameter in model.named_parameters():
        if name.startswith(("rpn", "roi_heads")) and parameter.dim() > 1:
            nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.1)
    with torch.no_grad():
        for _ in range(3):
            model.backbone(torch.rand(2, 3, 128, 192) - 0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    return model.eval()


@pytest.fixture(scope="module")
def theirs(reference: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of its weights, and one that nothing has a place for."""
    path = tmp_path_factory.mktemp("torchvision") / "theirs.pth"
    torch.save({**reference.state_dict(), "surplus": torch.zeros(1)}, path)
    return str(path)


def test_a_converted_model_predicts_what_the_original_does(reference: nn.Module, theirs: str, tmp_path: Path) -> None:
    done = convert("--from", "torchvision", theirs, "ours.pt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 without a counterpart here:\n  surplus\n" in done.stdout and "90 classes" in done.stdout
    predictor = load_model(tmp_path / "ours.pt", "cpu")
    assert predictor.category_ids == list(range(1, 91)) and predictor.class_names[17] == "dog"
    predictor.short_side, predictor.max_side = 128, 192
    image = drawn(2, 3, 90, 131)[0]
    found = predictor.predict(image.permute(1, 2, 0).numpy())
    with torch.no_grad():
        wanted = reference([image / 255])[0]
    assert len(found) == len(wanted["scores"]) > 20
    torch.testing.assert_close(found.boxes, wanted["boxes"], atol=1e-3, rtol=0)
    # Normalised after resizing, not before as there: random weights amplify the last bits.
    torch.testing.assert_close(found.scores, wanted["scores"], atol=5e-5, rtol=0)
    assert torch.equal(found.labels + 1, wanted["labels"])
    soft = wanted["masks"][:, 0].numpy()
    assert (found.masks() != (soft > 0.5))[np.abs(soft - 0.5) > 1e-4].sum() == 0


def test_the_refiner_trains_alone_on_a_converted_host(reference: nn.Module, theirs: str, tmp_path: Path) -> None:
    done = convert("--from", "torchvision", "--drop-unused", theirs, "ours.pt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    state = read_checkpoint(tmp_path / "ours.pt")
    assert len(state["categories"]) == 80
    host = from_dict(MaskRCNNConfig, state["config"]["host"])
    model = build_model(host, 80, SharpContourConfig(train_host=False))
    kept = load_matching(model, state)
    assert all(name.startswith("refiner.") for name in kept)
    assert torch.equal(model.host.box_head.fcs[0].weight, reference.roi_heads.box_head.fc6.weight)
    bias = reference.roi_heads.box_predictor.cls_score.bias
    assert torch.equal(model.host.box_head.scores.bias[[0, 11, 79, 80]], bias[[1, 13, 90, 0]])
    before = {key: value.clone() for key, value in model.host.state_dict().items()}
    losses = model.train()(*prepared(model, 2))
    losses["loss_ipc"].backward()
    assert losses["loss_ipc"] > 0 and model.refiner.classifier.encoder.weight.grad is not None
    assert all(torch.equal(value, before[key]) for key, value in model.host.state_dict().items())


@pytest.mark.parametrize(("origin", "resize"), [("detectron2", "detectron2"), ("refinemask", "mmcv")])
def test_cityscapes_weights_look_at_cityscapes_sizes(origin: str, resize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    configuration = importlib.import_module("convert").configuration
    host, of_cityscapes = MaskRCNNConfig(), published_categories(8, every_id=False)
    data = configuration("mask_rcnn", host, origin, of_cityscapes).data
    assert (data.name, data.test_short_side, data.test_max_side, data.resize) == ("cityscapes", 1024, 2048, resize)
    others = [{"id": k, "name": f"class {k}"} for k in range(1, 9)]
    for categories in (others, published_categories(80, every_id=False)):
        data = configuration("mask_rcnn", host, origin, categories).data
        assert (data.name, data.test_short_side, data.test_max_side, data.resize) == ("coco", 800, 1333, resize)


def test_mistakes_are_told_in_a_line(reference: nn.Module, tmp_path: Path) -> None:
    weights = reference.state_dict()
    del weights["rpn.head.cls_logits.bias"]
    torch.save(weights, tmp_path / "cut.pth")
    (tmp_path / "gt.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "a", "width": 2, "height": 2}], "annotations": []})[:-1]
        + ', "categories": [{"id": 1, "name": "a"}]}'
    )
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(Vtouch executed\ntR.")
    for arguments, message in [
        (["--from", "torchvision", "cut.pth", "o.pt"], "lacks 1 tensors, the first rpn.objectness.bias"),
        (["--from", "torchvision", "--annotations", "gt.json", "cut.pth", "o.pt"], "has 1 categories, the weights 90"),
        (["--from", "detectron2", "cut.pth", "o.pt"], "no ResNet-50"),
        (["--from", "detectron2", "evil.pkl", "o.pt"], "refused, nothing was executed"),
    ]:
        failed = convert(*arguments, cwd=tmp_path)
        assert failed.returncode == 2 and message in failed.stderr and failed.stderr.count("\n") == 1, failed.stderr
    assert not (tmp_path / "executed").exists() and not (tmp_path / "o.pt").exists()
    partial = convert("--from", "torchvision", "--partial", "cut.pth", "o.pt", cwd=tmp_path)
    assert partial.returncode == 0 and "1 that the file lacks:\n  rpn.objectness.bias" in partial.stdout
