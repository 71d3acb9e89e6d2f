"""The examples of docs/extending.md do what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import models.backbone
from data import DATASETS, DataConfig, build_dataset
from engine.config import apply_overrides, change_refiner
from engine.recipes import RECIPES
from models import MODELS, build_model, load_model
from models.backbone import BODIES
from sharpcontour import InputError, SharpContour, SharpContourConfig
from sharpcontour.host import RefinerInputs
from sharpcontour.ipc import PointClassifier
from sharpcontour.regression import OffsetRegression
from tests.commands import run_script
from tests.models.helpers import confident, drawn, prepared, tiny_config

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


@pytest.fixture(autouse=True)
def _registered_for_one_test() -> Iterator[None]:
    """What an example adds to a dict is gone after the test."""
    before = [(names, dict(names)) for names in (BODIES, MODELS, DATASETS)]
    yield
    for names, old in before:
        names.clear()
        names.update(old)  # type: ignore[arg-type]


def examples(heading: str) -> list[str]:
    """The Python blocks below a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def examples_of_the_top() -> list[str]:
    """The Python blocks before the first heading of the page."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8").split("\n## ")[0], re.DOTALL)


def run(heading: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """All names that the examples of a section define; a block that begins with a path becomes that module."""
    names: dict[str, Any] = {}
    for code in examples(heading):
        own: dict[str, Any] = {"__name__": "example"}
        if path := re.match(r"# ((?:models|data)/[\w/]+)\.py\n", code):
            module = types.ModuleType(path.group(1).replace("/", ".").removesuffix(".__init__"))
            monkeypatch.setitem(sys.modules, module.__name__, module)
            own = module.__dict__
        own.update({key: value for key, value in names.items() if key not in own})
        exec(compile(code, f"{PAGE.name}: {heading}", "exec"), own)
        names |= {key: value for key, value in own.items() if not key.startswith("__")}
    return names


def trains(model: Any) -> dict[str, float]:
    """One step on drawn images, and detections afterwards."""
    losses = model.train()(*prepared(model, 1, 2))
    total = sum(value for key, value in losses.items() if key.startswith("loss"))
    total.backward()
    assert torch.isfinite(total)
    with torch.no_grad():
        found = model.eval()([drawn(0, 2)[0]])[0]
    assert found.masks().shape == (len(found), 96, 128)
    return {key: float(value.detach()) for key, value in losses.items()}


def test_another_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    run("Another backbone", monkeypatch)
    config = tiny_config()
    config.backbone.name = "convnext_tiny"
    with pytest.raises(InputError, match=r"backbone\.norm=bn means nothing to convnext_tiny; leave it at frozen_bn"):
        build_model(config, 2)
    config.backbone.norm, config.backbone.width = "frozen_bn", 64
    model: Any = build_model(config, 2, SharpContourConfig())
    trains(model)
    assert next(model.host.backbone.body.parameters()).grad is not None
    config.backbone.freeze_at = 1
    with pytest.raises(InputError, match="freeze_at=1 means nothing"):
        build_model(config, 2)
    config.backbone.freeze_at, config.backbone.weights = 2, "file.pth"
    with pytest.raises(InputError, match="knows none and imagenet"):
        build_model(config, 2)


def test_the_message_of_the_page_is_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    run("Another backbone", monkeypatch)
    config = RECIPES["shapes"]("dance", True)
    apply_overrides(config, ["host.backbone.name=convnext_tiny"])
    with pytest.raises(InputError) as told:
        build_model(config.host, 2)
    assert f"    error: {told.value}\n" in PAGE.read_text(encoding="utf-8")
    apply_overrides(config, ["host.backbone.norm=frozen_bn", "host.backbone.width=64"])
    assert isinstance(models.backbone.build_body(config.host.backbone).channels, list)


def test_another_point_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("Another point classifier", monkeypatch)
    host: Any = build_model(confident("mask_rcnn"), 2)
    model = names["refined"](host)
    losses = trains(model)
    assert losses["loss_ipc"] > 0 and "ipc_sharpness" in losses
    assert type(model.refiner.classifier).__name__ == "SharedClassifier"
    assert all(p.grad is not None for p in model.refiner.parameters())


def test_another_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = run("Another loss", monkeypatch)["WithCrossEntropy"]
    model: Any = build_model(confident("dance"), 2, SharpContourConfig())
    shapes = model.host.fine_channels, model.host.controller_shape, model.host.context_channels
    model.refiner = kind(SharpContourConfig(), *shapes)
    losses = trains(model)
    assert losses["loss_ipc"] / 10 == pytest.approx(np.log(2), abs=0.1) and "ipc_sharpness" not in losses


def test_a_part_outside_the_checkout(tmp_path: Path) -> None:
    code = examples_of_the_top()[0].replace("/path/to/the/checkout", str(PAGE.parents[1]))
    host = "from models.zoo import MODELS\nfrom models.dance import DANCE\nMODELS['mine'] = DANCE\n"
    (tmp_path / "mine.py").write_text(code.replace("# import your part here", f"{host}#"))
    line = [sys.executable, str(tmp_path / "mine.py"), "--help"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "mask_rcnn,mine,pointrend" in done.stdout, done.stderr


def test_hosts_must_be_told_apart_by_their_configurations() -> None:
    MODELS["mine"] = type("Mine", (MODELS["dance"],), {})
    with pytest.raises(InputError, match="the models dance and mine have configurations of one class, DanceConfig"):
        build_model(confident("dance"), 2)


def test_losses_that_nothing_would_learn_from_are_refused() -> None:
    model: Any = build_model(confident("dance"), 2, SharpContourConfig())
    losses = model.host.losses
    model.host.losses = lambda *given: ({"cls": torch.zeros(())}, losses(*given)[1])
    with pytest.raises(InputError, match='DANCE are called cls: only what has a name that begins with "loss"'):
        model.train()(*prepared(model, 1, 2))


@pytest.mark.parametrize("lost", ["describe", "unused"])
def test_a_classifier_without_a_method_is_refused(lost: str) -> None:
    host: Any = build_model(confident("dance"), 2)
    kind = type("Mine", (PointClassifier,), {lost: None})
    shapes = host.fine_channels, host.controller_shape, host.context_channels
    with pytest.raises(InputError, match=f"Mine has no method {lost}, which the refiner calls"):
        SharpContour(SharpContourConfig(), *shapes, classifier=kind)


def test_a_classifier_with_logits_of_another_shape_is_refused() -> None:
    model: Any = build_model(confident("dance"), 2, SharpContourConfig())
    forward = model.refiner.classifier.forward
    model.refiner.classifier.forward = lambda *given: forward(*given)[:, :1]
    with pytest.raises(InputError, match=r"phi has the shape \(\d+, 1\) at points whose labels have \(\d+, 128\)"):
        model.train()(*prepared(model, 1, 2))


def test_what_a_host_forgets_is_told() -> None:
    model: Any = build_model(confident("dance"), 2, SharpContourConfig())
    images, targets = prepared(model, 1, 2)
    losses, detect = model.host.losses, model.host.detect

    def without(given: Any, **fields: Any) -> Any:
        return given[0], replace(given[1], **fields)

    model.host.losses = lambda *given: without(losses(*given), target_index=None)
    with pytest.raises(InputError, match="training instances without target_index"):
        model.train()(images, targets)
    model.host.losses = losses
    with pytest.raises(InputError, match=r"build the data set with prepare=model\.target_builder"):
        model.train()(images, [{k: v for k, v in target.items() if k != "boundary"} for target in targets])
    model.eval()
    model.host.detect = lambda images: without(detect(images), contours=None)
    with pytest.raises(InputError, match="instances without contours and without soft_masks"):
        model([drawn(0, 2)[0]])
    model.host.detect = lambda images: (detect(images)[0] * 2, detect(images)[1])
    with pytest.raises(InputError, match=r"detect gave \d+ detections and \d+ instances for the refiner"):
        model([drawn(0, 2)[0]])


ODD: dict[str, tuple[Callable[[RefinerInputs], dict[str, Any]], str]] = {
    "fine": (lambda given: {"fine": given.fine[:, :5]}, r"DANCE gave fine of the shape .*, not \(any, \d+, any, any\)"),
    "feats": (lambda given: {"feats": given.feats[:, :, 0]}, r"DANCE gave feats of the shape"),
    "fewer": (lambda given: {"boxes": given.boxes[1:]}, r"DANCE gave image_index of the shape \(\d+,\), not \(\d+\)"),
    "index": (lambda given: {"image_index": given.image_index.int()}, r"image_index as torch\.int32, not torch\.int64"),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", ODD)
def test_shapes_that_a_host_has_not_said_are_told(case: str, training: bool) -> None:
    """The line names the host and the field; without it torch would tell of two numbers, somewhere in the refiner."""
    change, message = ODD[case]
    model: Any = build_model(confident("dance"), 2, SharpContourConfig()).train(training)
    name = "losses" if training else "detect"
    own = getattr(model.host, name)

    def other(*given: Any) -> Any:
        first, inputs = own(*given)
        return first, replace(inputs, **change(inputs))

    setattr(model.host, name, other)
    with pytest.raises(InputError, match=message):
        model(*(prepared(model, 1, 2) if training else ([drawn(0, 2)[0]],)))
    setattr(model.host, name, lambda *given: own(*given)[0])
    with pytest.raises(InputError, match=f"DANCE.{name} must return two things, the second of them RefinerInputs"):
        model(*(prepared(model, 1, 2) if training else ([drawn(0, 2)[0]],)))


def test_contours_of_another_type_are_told() -> None:
    model: Any = build_model(confident("dance"), 2, SharpContourConfig()).eval()
    detect = model.host.detect

    def double(images: Any) -> Any:
        found, inputs = detect(images)
        return found, replace(inputs, contours=replace(inputs.contours, vertices=inputs.contours.vertices.double()))

    model.host.detect = double
    with pytest.raises(InputError, match=r"DANCE gave contours as torch\.float64, not torch\.float32"):
        model([drawn(0, 2)[0]])


def test_another_evolution_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    bisect = run("Another evolution rule", monkeypatch)["bisect"]
    angle = torch.arange(64) * (2 * np.pi / 64)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    centre, limits = torch.tensor([50.0, 50.0]), torch.tensor([[100.0, 100.0]])
    config = SharpContourConfig().evolution

    def disc(points: torch.Tensor) -> torch.Tensor:
        return (points - centre).norm(dim=-1) - 30

    start = (centre + 29 * circle)[None]
    moved = bisect(start, torch.tensor([False]), torch.tensor([3600.0]), limits, disc, config).steps[-1]
    assert ((moved - centre).norm(dim=-1) - 30).abs().max() < 0.05
    far = (centre + 20 * circle)[None]
    stayed = bisect(far, torch.tensor([False]), torch.tensor([3600.0]), limits, disc, config).steps[-1]
    assert torch.equal(stayed, far)
    model: Any = build_model(confident("dance"), 2, SharpContourConfig())
    shapes = model.host.fine_channels, model.host.controller_shape, model.host.context_channels
    model.refiner = SharpContour(SharpContourConfig(), *shapes, evolve=bisect)
    model.statistics.start()
    trains(model)
    stats = model.statistics.finish()
    assert stats["contours"] > 0 and "flip_share" not in stats
    settings = SharpContourConfig()
    settings.classifier.output = "vector"
    with pytest.raises(InputError, match="OffsetRegression moves contours by itself and follows no evolution rule"):
        OffsetRegression(settings, *shapes, evolve=bisect)
    regression: Any = build_model(confident("dance"), 2, settings)
    change_refiner(regression, ["sharpcontour.evolution.iterations=2"])
    with pytest.raises(InputError, match=r"a regression, classifier\.output=vector, has no use for it; leave it out"):
        change_refiner(regression, ["sharpcontour.evolution.ratio=0.05"])


def test_a_fifth_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run("A fifth host", monkeypatch)
    settings = ["train.iterations=2", "data.shapes_size=64", "data.val_images_count=4", "data.workers=0"]
    settings += ["train.images_per_batch=2", "train.reference_batch=2", "train.pictures=2", "train.amp=none"]
    out = tmp_path / "run"
    arguments = ["--model", "ellipses", "--refine", "--out", str(out)]
    done = run_script("train.py", *arguments, "--set", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "model ellipses + SharpContour" in done.stdout and (out / "metrics.json").is_file()
    assert list((out / "pictures").glob("*.png"))
    predictor = load_model(out)
    found = predictor.predict(np.zeros((64, 64, 3), np.uint8))
    assert found.coarse is not None and type(predictor.model.host).__name__ == "Ellipses"  # type: ignore[union-attr]


def test_another_data_set_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run("Another data set format", monkeypatch)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for k in range(3):
            ids = np.zeros((64, 80), np.uint16)
            ids[10:30, 10 + k : 40], ids[35:60, 45:70] = 7, 300
            picture = np.where(ids[..., None] > 0, 200, 60).astype(np.uint8).repeat(3, 2)
            cv2.imwrite(str(tmp_path / split / f"{k}.jpg"), picture)
            cv2.imwrite(str(tmp_path / split / f"{k}_ids.png"), ids)
    dataset = build_dataset(DataConfig(name="ids", root=str(tmp_path), test_short_side=64), "val")
    truth = dataset.ground_truth()
    assert len(dataset) == 3 and [a["area"] for a in truth["annotations"][:2]] == [600.0, 625.0]
    settings = ["train.iterations=2", "train.images_per_batch=2", "train.reference_batch=2", "data.workers=0"]
    settings += ["train.pictures=0", "train.amp=none", "data.test_short_side=64"]
    arguments = ["--model", "mask_rcnn", "--refine", "--data", "ids", "--root", str(tmp_path), "--recipe", "small"]
    done = run_script("train.py", *arguments, "--out", "run", "--set", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 validation images" in done.stdout
    with pytest.raises(InputError, match=r"holds no photograph"):
        build_dataset(DataConfig(name="ids", root=str(tmp_path / "none")), "val")
    assert DATASETS["ids"].settings >= {"root", "flip", "test_short_side"}  # type: ignore[attr-defined]
    assert not {"max_side", "colour"} & DATASETS["ids"].settings  # type: ignore[attr-defined]
