"""``--set``, and the way of a configuration through JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from engine.config import Config, TrainConfig, apply_overrides, describe, differences, flat
from engine.limits import FROM_TO, HOST_LIMITS, LIMITS, range_fault
from engine.recipes import RECIPES
from models import MODELS, HostBase, build_model
from models.backbone import BackboneConfig
from models.mask_rcnn import MaskRCNN
from sharpcontour.errors import InputError
from sharpcontour.io.plain import from_dict, to_dict


@dataclass
class _Inner:
    rate: float = 0.1
    size: tuple[int, ...] = (1,)
    pair: tuple[int, float] = (1, 2.0)
    kind: Literal["a", "b"] = "a"


@dataclass
class _Outer:
    inner: _Inner = field(default_factory=_Inner)
    count: int = 1
    flag: bool = True
    name: str = ""
    limit: int | None = None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("inner.rate=1e-3", 0.001),
        ("inner.rate=2", 2.0),
        ("inner.size=480,512", (480, 512)),
        ("inner.size=(7,)", (7,)),
        ("inner.pair=3,4", (3, 4.0)),
        ("inner.kind=b", "b"),
        ("count=12", 12),
        ("flag=false", False),
        ("name=x=y", "x=y"),
        ("limit=none", None),
        ("limit=5", 5),
    ],
)
def test_values_take_the_type_of_their_key(text: str, value: Any) -> None:
    config = _Outer()
    apply_overrides(config, [text])  # type: ignore[arg-type]
    got = flat(config)[text.partition("=")[0]]
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner.rat=1", "no such key; nearest: inner.rate"),
        ("rate=1", "no such key; nearest: inner.rate"),
        ("inner=1", "no such key"),
        ("count=1.5", "expected a whole number"),
        ("count=many", "expected a whole number"),
        ("inner.rate=fast", "expected a number"),
        ("flag=1", "expected true or false"),
        ("inner.kind=c", "expected one of a, b"),
        ("inner.size=1,x", "expected a list of a whole number, such as 1,2,3"),
        ("inner.pair=1", "expected 2 values separated by commas"),
        ("count", "write it as key=value"),
    ],
)
def test_mistakes_are_told(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        apply_overrides(_Outer(), [text])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.iterations=0", "choose 1 or more"),
        ("train.images_per_batch=-2", "choose 1 or more"),
        ("train.log_period=0", "choose 1 or more"),
        ("train.eval_period=-1", "choose 0 or more"),  # would never end
        ("data.workers=-1", "choose 0 or more"),
        ("train.base_lr=nan", "choose a finite number"),
        ("sharpcontour.loss.gamma=1e400", "choose a finite number"),
        ("train.seed=-1", "choose a number from 0 to 4294967295"),
        ("data.flip=5", "choose a number from 0 to 1"),
        ("data.shapes_size=100000", "choose a number from 64 to 4096"),
        ("data.short_sides=640,0", "choose 1 or more"),
        ("data.short_sides=", "name at least one value"),
        ("sharpcontour.loss.alpha_limits=0.9,0.1", "name smaller ones first"),
        ("train.steps=80000,60000", "name smaller ones first"),
        ("data.object_share=0,0", "choose a number from 0.01 to 10"),
        ("host.steps=0", "choose 1 or more"),
    ],
)
def test_numbers_out_of_range_are_told_before_training(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"--set {text}: {message}")):
        apply_overrides(RECIPES["shapes"]("dance", True), [text])


@pytest.mark.parametrize("model", sorted(MODELS))
def test_limits_are_of_settings_that_there_are_and_hold_for_all_recipes(model: str) -> None:
    for recipe in sorted(RECIPES):
        if any(recipe.startswith(f"{other}_") for other in MODELS if other != model):
            continue
        values = flat(RECIPES[recipe](model, True))
        assert set(LIMITS) | set(FROM_TO) <= set(values)
        assert not {key: fault for key, value in values.items() if (fault := range_fault(key, value))}


def test_limits_of_hosts_are_of_settings_that_one_has() -> None:
    assert set(HOST_LIMITS) <= {key for model in MODELS for key in flat(RECIPES["coco_1x"](model, True))}


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("model", sorted(MODELS))
def test_recipes_survive_json(model: str, recipe: str) -> None:
    if any(recipe.startswith(f"{other}_") for other in MODELS if other != model):
        with pytest.raises(InputError, match=f"not {model}"):
            RECIPES[recipe](model, True)
        return
    config = RECIPES[recipe](model, True)
    plain = json.loads(json.dumps(to_dict(config)))
    again = from_dict(Config, plain)
    again.host = from_dict(MODELS[model].config_type, plain["host"])
    assert again == config
    assert differences(to_dict(again), to_dict(config)) == []
    assert describe(config).count("\n") > 3


def test_differences_name_both_values() -> None:
    changed = RECIPES["shapes"]("dance", True)
    apply_overrides(changed, ["train.base_lr=7"])
    found = differences(to_dict(RECIPES["shapes"]("dance", True)), to_dict(changed))
    assert len(found) == 1 and found[0].startswith("train.base_lr: ") and found[0].endswith(" -> 7.0")


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(InputError, match=r"unknown model 'dense'; valid: anymask, .*refinemask"):
        RECIPES["shapes"]("dense", True)


def test_a_model_that_lacks_a_part_is_told_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    class Half(HostBase):
        title = "Half"

    monkeypatch.setitem(MODELS, "half", Half)
    for recipe in ("shapes", "coco_1x"):
        with pytest.raises(InputError, match=r"model half: Half lacks config_type, small\(\), losses\(\), .*extending"):
            RECIPES[recipe]("half", True)


def test_a_configuration_without_a_backbone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Settings:
        body: BackboneConfig = field(default_factory=BackboneConfig)

    class Bodied(MaskRCNN):
        config_type = Settings

    monkeypatch.setitem(MODELS, "bodied", Bodied)
    with pytest.raises(InputError, match=r"model bodied: Bodied lacks config_type\.backbone; .*extending"):
        build_model(Settings(), 2)


def test_a_configuration_that_is_no_dataclass_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "plain", type("Plain", (MaskRCNN,), {"config_type": dict}))
    with pytest.raises(InputError, match=r"model plain: Plain lacks config_type that is a dataclass; .*extending"):
        RECIPES["shapes"]("plain", True)


def test_a_model_that_forgets_what_the_refiner_reads_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Settings:
        backbone: BackboneConfig = field(default_factory=BackboneConfig)

    class Blind(MaskRCNN):
        config_type = Settings

        def __init__(self, config: Settings, num_classes: int) -> None:
            HostBase.__init__(self, config.backbone)

    monkeypatch.setitem(MODELS, "blind", Blind)
    with pytest.raises(InputError, match="its __init__ sets no config and no fine_channels and no controller_shape"):
        build_model(Settings(), 2)


def _settings() -> list[tuple[str, str]]:
    """Class and name of every value in a configuration."""
    found: list[tuple[str, str]] = []

    def walk(value: Any) -> None:
        for f in dataclasses.fields(value):
            found.append((type(value).__name__, f.name))
            if dataclasses.is_dataclass(getattr(value, f.name)):
                walk(getattr(value, f.name))

    walk(RECIPES["shapes"]("dance", True))
    return found


def test_every_setting_is_read_somewhere() -> None:
    """A key that nothing reads would be a promise that nothing keeps."""
    root = Path(__file__).resolve().parents[2]
    folders = ("sharpcontour", "models", "data", "engine", "eval", "scripts")
    files = [
        path for folder in folders for path in (root / folder).rglob("*.py") if not path.name.endswith("recipes.py")
    ]
    source = "\n".join(path.read_text() for path in files)
    unread = [f"{owner}.{name}" for owner, name in _settings() if not re.search(rf"\.{name}\b", source)]
    assert unread == []


def test_the_rivals_schedules() -> None:
    """Detectron2's and mmdet's, by their numbers."""
    pointrend = RECIPES["pointrend_r50_3x"]("pointrend", False)
    assert (pointrend.train.iterations, pointrend.train.steps) == (270_000, (210_000, 250_000))
    assert pointrend.host.box_head.masks_on_predictions and pointrend.host.backbone.channel_order == "bgr"
    city = RECIPES["pointrend_cityscapes"]("pointrend", False).train
    assert (city.iterations, city.steps, city.images_per_batch) == (24_000, (18_000,), 8)
    assert city.base_lr * 8 / city.reference_batch == 0.01
    refinemask = RECIPES["refinemask_r50_1x"]("refinemask", False)
    train = refinemask.train
    assert [step / train.iterations for step in train.steps] == pytest.approx([8 / 12, 11 / 12], abs=1e-4)
    assert (train.clip_grad_norm, train.warmup_iterations, train.norm_weight_decay) == (35.0, 500, 1e-4)
    assert refinemask.host.box_head.loss_weight == 2.0 and refinemask.data.short_sides == (800,)


def test_published_rates() -> None:
    """SGD at 0.01 for 16 images, scaled linearly."""
    config = TrainConfig()
    assert config.base_lr * 8 / config.reference_batch == 0.005
