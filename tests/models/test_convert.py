"""Foreign names -> ours, and files that must not be trusted."""

from __future__ import annotations

import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2

from data.categories import published_categories
from models import build_model
from models.backbone import BackboneConfig, ResNet
from models.convert.backbones import from_caffe2
from models.convert.condinst import from_adelaidet
from models.convert.dance import from_dance
from models.convert.mask_rcnn import from_detectron2, from_torchvision
from models.convert.pointrend import from_pointrend, is_pointrend
from models.convert.reading import read_weights
from models.convert.refinemask import from_refinemask
from models.dance import DanceConfig
from models.mask_rcnn import detectron2
from models.pointrend import detectron2 as pointrend_preset
from models.refinemask import RefineMaskConfig
from sharpcontour.errors import InputError


def random_state(config: Any, classes: int) -> dict[str, Tensor]:
    """Random tensors in the shapes of a model; the counters of batch norms left out."""
    config.backbone.weights = "none"
    with torch.device("meta"):
        model = build_model(config, classes)
    generator = torch.Generator().manual_seed(0)
    shapes = {key: value.shape for key, value in model.state_dict().items() if "num_batches" not in key}
    return {key: torch.rand(shape, generator=generator) for key, shape in shapes.items()}


def foreign_backbone(key: str) -> str:
    """A body's and pyramid's name here -> in Detectron2."""
    key = re.sub(r"backbone\.body\.conv1\.", "backbone.bottom_up.stem.conv1.", key)
    key = re.sub(r"backbone\.body\.bn1\.", "backbone.bottom_up.stem.conv1.norm.", key)
    key = re.sub(r"backbone\.body\.layer(\d)", lambda m: f"backbone.bottom_up.res{int(m[1]) + 1}", key)
    key = re.sub(r"\.bn(\d)\.", r".conv\1.norm.", key)
    key = key.replace(".downsample.0.", ".shortcut.").replace(".downsample.1.", ".shortcut.norm.")
    key = re.sub(r"backbone\.fpn\.inner_blocks\.(\d)\.0", lambda m: f"backbone.fpn_lateral{int(m[1]) + 2}", key)
    key = re.sub(r"backbone\.fpn\.layer_blocks\.(\d)\.0", lambda m: f"backbone.fpn_output{int(m[1]) + 2}", key)
    return key.replace("backbone.fpn.extra_blocks.", "backbone.top_block.")


def as_detectron2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {
        "rpn.convs.0": "proposal_generator.rpn_head.conv",
        "rpn.objectness": "proposal_generator.rpn_head.objectness_logits",
        "rpn.deltas": "proposal_generator.rpn_head.anchor_deltas",
        "box_head.fcs.0": "roi_heads.box_head.fc1",
        "box_head.fcs.1": "roi_heads.box_head.fc2",
        "box_head.scores": "roi_heads.box_predictor.cls_score",
        "box_head.deltas": "roi_heads.box_predictor.bbox_pred",
        "mask_head.deconv": "roi_heads.mask_head.deconv",
        "mask_head.logits": "roi_heads.mask_head.predictor",
        **{f"mask_head.convs.{k}.0": f"roi_heads.mask_head.mask_fcn{k + 1}" for k in range(4)},
    }
    result = {}
    for key, value in state.items():
        module, _, part = key.rpartition(".")
        result[f"{names[module]}.{part}" if module in names else foreign_backbone(key)] = value
    return result


def as_dance(state: dict[str, Tensor]) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == "detector.head.scales":
            for level, scale in enumerate(value):
                result[f"proposal_generator.fcose_head.scales.{level}.scale"] = scale.view(1)
            continue
        new = foreign_backbone(key).replace("detector.head.", "proposal_generator.fcose_head.")
        new = re.sub(r"branch\.merge\.levels\.(\d)\.(\d)\.0\.", lambda m: f"branch.p{int(m[1]) + 2}.{m[2]}.", new)
        new = re.sub(r"branch\.merge\.levels\.(\d)\.(\d)\.1\.", lambda m: f"branch.p{int(m[1]) + 2}.{m[2]}.norm.", new)
        new = re.sub(r"branch\.predictor\.0\.0\.", "branch.predictor.0.", new)
        new = re.sub(r"branch\.predictor\.0\.1\.", "branch.predictor.0.norm.", new)
        for ours, theirs in (("0", "0"), ("1", "0.norm"), ("3", "1"), ("4", "1.norm"), ("6", "2")):
            if key.startswith(f"branch.attender.{ours}."):
                new = f"branch.attender.{theirs}.{key.rpartition('.')[2]}"
        new = re.sub(r"branch\.features\.(\d)\.0\.", r"branch.refine_head.bottom_out.\1.", new)
        new = re.sub(r"branch\.features\.(\d)\.1\.", r"branch.refine_head.bottom_out.\1.norm.", new)
        new = re.sub(r"branch\.snakes\.(\d)\.", r"branch.refine_head.deformer\1.", new)
        new = re.sub(r"\.residual\.(\d)", r".res\1", new)
        new = re.sub(r"(deformer\d\.(?:head|res\d)\.conv)\.", r"\1.fc.", new)
        new = new.replace(".hidden.", ".prediction.").replace(".offset.", ".prediction.4.")
        result[new.replace("branch.", "refinement_head.")] = value
    return result


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(found) == set(wanted)
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnext101_32x8d"])
def test_detectron2(name: Any) -> None:
    state = random_state(detectron2(name), 80)
    foreign = as_detectron2(state)
    foreign["pixel_mean"], foreign["something.else"] = torch.zeros(3, 1, 1), torch.zeros(1)
    config, found = from_detectron2(foreign, "file")
    same(found.weights, state)
    assert found.ignored == ["pixel_mean"] and found.unused == ["something.else"]
    wanted = detectron2(name)
    wanted.backbone.weights = "none"
    assert config == wanted


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("classes", [80, 8])
def test_pointrend(classes: int, older: bool) -> None:
    heads = {"coarse_head": "roi_heads.mask_head.coarse_head", "point_head": "roi_heads.mask_head.point_head"}
    if older:
        heads = {"coarse_head": "roi_heads.mask_coarse_head", "point_head": "roi_heads.mask_point_head"}
    layers = {"reduce": "reduce_spatial_dim_conv", "fcs.0": "fc1", "fcs.1": "fc2", "fcs.2": "fc3"}
    state, foreign = random_state(pointrend_preset(), classes), {}
    for key, value in as_detectron2(state).items():
        head, _, rest = key.partition(".")
        if head in heads:
            layer, _, part = rest.rpartition(".")
            name = "prediction" if (head, layer) == ("coarse_head", "predictor") else layers.get(layer, layer)
            name = f"coarse_mask_{name}" if older and head == "coarse_head" and name.startswith("fc") else name
            key = f"{heads[head]}.{name}.{part}"
        foreign[key] = value
    assert is_pointrend(foreign) and not is_pointrend({"roi_heads.mask_head.deconv.weight": torch.zeros(1)})
    config, found = from_pointrend(foreign, "file")
    same(found.weights, state)
    assert found.unused == [] and config.box_head.masks_on_predictions and config.backbone.stride_in_1x1
    assert foreign[f"{heads['point_head']}.fc1.weight"].shape == (256, 256 + classes, 1)
    wide = 1024, 12544
    assert foreign[f"{heads['coarse_head']}.{'coarse_mask_' if older else ''}fc1.weight"].shape == wide


def refinemask_shapes(classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the mask head in a released RefineMask."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, channels: int, side: int = 1) -> None:
        name = f"roi_head.mask_head.{name}"
        shapes.update({f"{name}.weight": (out, channels, side, side), f"{name}.bias": (out,)})

    for name, count in (("instance_convs", 2), ("semantic_convs", 4)):
        for k in range(count):
            conv(f"{name}.{k}.conv", 256, 256, 3)
    conv("semantic_logits", 1, 256)
    for k, c in enumerate((256, 128, 64)):
        stage = f"stages.{k}"
        conv(f"{stage}.semantic_transform_in", c, 256)
        conv(f"{stage}.semantic_transform_out", c, c)
        conv(f"{stage}.instance_logits", classes, c)
        conv(f"{stage}.fuse_conv.0", c, 2 * c + 2)
        for d in (1, 2, 3):
            conv(f"{stage}.fuse_conv.1.dilation_conv_{d}.conv", c, c, 3)
        conv(f"{stage}.fuse_conv.1.merge_conv.conv", c, c)
        conv(f"{stage}.fuse_transform_out", c // 2 - 2, c)
    conv("final_instance_logits", classes, 32)
    assert len(shapes) == 70
    return shapes


@pytest.mark.parametrize("classes", [80, 8])
def test_refinemask(classes: int) -> None:
    names = {
        "rpn.convs.0": "rpn_head.rpn_conv",
        "rpn.objectness": "rpn_head.rpn_cls",
        "rpn.deltas": "rpn_head.rpn_reg",
        "box_head.fcs.0": "roi_head.bbox_head.shared_fcs.0",
        "box_head.fcs.1": "roi_head.bbox_head.shared_fcs.1",
        "box_head.scores": "roi_head.bbox_head.fc_cls",
        "box_head.deltas": "roi_head.bbox_head.fc_reg",
        **{f"backbone.fpn.inner_blocks.{k}.0": f"neck.lateral_convs.{k}.conv" for k in range(4)},
        **{f"backbone.fpn.layer_blocks.{k}.0": f"neck.fpn_convs.{k}.conv" for k in range(4)},
    }
    state = random_state(RefineMaskConfig(), classes)
    foreign = {name: torch.empty(shape, device="meta") for name, shape in refinemask_shapes(classes).items()}
    for key, value in state.items():
        module, _, part = key.rpartition(".")
        if not key.startswith("refine_head."):
            foreign[f"{names[module]}.{part}" if module in names else key.replace("backbone.body.", "backbone.")] = (
                value
            )
    config, found = from_refinemask(foreign, "file")
    assert found.unused == [] and config.backbone.norm == "affine_bn" and config.backbone.name == "resnet50"
    assert {k: v.shape for k, v in found.weights.items()} == {k: v.shape for k, v in state.items()}
    assert all(torch.equal(v, state[k]) for k, v in found.weights.items() if not k.startswith("refine_head."))
    with pytest.raises(InputError, match="faster-better"):
        from_refinemask({"roi_head.mask_head.stage_instance_logits.0.weight": torch.zeros(1)}, "file")


def test_dance() -> None:
    state = random_state(DanceConfig(), 80)
    config, found = from_dance(as_dance(state), "file")
    same(found.weights, state)
    assert found.unused == [] and config.backbone.stride_in_1x1 and config.backbone.channel_order == "bgr"


def adelaidet_shapes(blocks: tuple[int, ...], semantic: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a released CondInst, as its documentation of the file has them."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int, counter: bool = False) -> None:
        shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})
        if counter:
            shapes[f"{name}.num_batches_tracked"] = ()

    def conv(name: str, *shape: int) -> None:
        shapes.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    body = "backbone.bottom_up"
    shapes[f"{body}.stem.conv1.weight"] = (64, 3, 7, 7)
    norm(f"{body}.stem.conv1.norm", 64)
    before = 64
    for stage, count in enumerate(blocks):
        inner, outer = 64 * 2**stage, 256 * 2**stage
        for block in range(count):
            name = f"{body}.res{stage + 2}.{block}"
            sizes = [(inner, before, 1, 1), (inner, inner, 3, 3), (outer, inner, 1, 1)]
            for k, size in enumerate(sizes, 1):
                shapes[f"{name}.conv{k}.weight"] = size
                norm(f"{name}.conv{k}.norm", size[0])
            if block == 0:
                shapes[f"{name}.shortcut.weight"] = (outer, before, 1, 1)
                norm(f"{name}.shortcut.norm", outer)
            before = outer
    for level in (3, 4, 5):
        conv(f"backbone.fpn_lateral{level}", 256, 64 * 2**level, 1, 1)
        conv(f"backbone.fpn_output{level}", 256, 256, 3, 3)
    for level in (6, 7):
        conv(f"backbone.top_block.p{level}", 256, 256, 3, 3)
    head = "proposal_generator.fcos_head"
    for tower in ("cls_tower", "bbox_tower"):
        for k in range(4):
            conv(f"{head}.{tower}.{3 * k}", 256, 256, 3, 3)
            shapes.update({f"{head}.{tower}.{3 * k + 1}.{part}": (256,) for part in ("weight", "bias")})
    for name, channels in (("cls_logits", 80), ("bbox_pred", 4), ("ctrness", 1)):
        conv(f"{head}.{name}", channels, 256, 3, 3)
    shapes.update({f"{head}.scales.{k}.scale": (1,) for k in range(5)})
    conv("controller", 169, 256, 3, 3)
    blocks_of_branch = [(f"refine.{k}", 256) for k in range(3)] + [(f"tower.{k}", 128) for k in range(4)]
    for name, inner in blocks_of_branch + ([("seg_head.0", 256), ("seg_head.1", 128)] if semantic else []):
        shapes[f"mask_branch.{name}.0.weight"] = (128, inner, 3, 3)
        norm(f"mask_branch.{name}.1", 128, counter=True)
    conv("mask_branch.tower.4", 8, 128, 1, 1)
    if semantic:
        conv("mask_branch.logits", 80, 128, 1, 1)
    return {**shapes, "mask_head.sizes_of_interest": (5,), "mask_head._iter": (1,)}


@pytest.mark.parametrize(("blocks", "semantic"), [((3, 4, 6, 3), False), ((3, 4, 23, 3), True)])
def test_condinst(blocks: tuple[int, ...], semantic: bool) -> None:
    shapes = adelaidet_shapes(blocks, semantic)
    foreign = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    config, found = from_adelaidet(foreign, "file")
    assert found.unused == [] and found.ignored == ["mask_head.sizes_of_interest", "mask_head._iter"]
    assert config.semantic == semantic and config.backbone.stride_in_1x1 and config.backbone.weights == "none"
    with torch.device("meta"):
        own = build_model(config, 80).state_dict()
    wanted = {key: value.shape for key, value in own.items() if not re.search(r"backbone.*num_batches", key)}
    assert {key: value.shape for key, value in found.weights.items()} == wanted


@pytest.mark.parametrize("build", [maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2])
def test_torchvision(build: Any) -> None:
    with torch.device("meta"):
        reference = build(weights=None, weights_backbone=None, num_classes=5)
    weights = {key: torch.rand(value.shape) for key, value in reference.state_dict().items()}
    config, found = from_torchvision(weights)
    assert found.unused == []
    with torch.device("meta"):
        config.backbone.norm = "bn"
        model = build_model(config, 4)
    own = model.state_dict()
    assert {k for k in own if "num_batches" not in k} == {k for k in found.weights if "num_batches" not in k}
    assert all(value.shape == own[key].shape for key, value in found.weights.items())
    scores = weights["roi_heads.box_predictor.cls_score.bias"]
    assert torch.equal(found.weights["box_head.scores.bias"], torch.cat([scores[1:], scores[:1]]))


def test_torchvisions_older_names() -> None:
    with torch.device("meta"):
        reference = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)
    weights = {key: torch.rand(value.shape) for key, value in reference.state_dict().items()}
    old = {}
    for key, value in weights.items():
        key = re.sub(r"((?:inner|layer)_blocks\.\d)\.0\.", r"\1.", key)
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        old[re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", key)] = value
    assert set(old) != set(weights)
    same(from_torchvision(old)[1].weights, from_torchvision(weights)[1].weights)


def caffe2_resnet50() -> dict[str, Tensor]:
    """ImageNet weights as MSRA/R-50.pkl names them, random ones."""
    body = ResNet(BackboneConfig("resnet50", "none", "frozen_bn"))
    foreign = {"conv1_b": torch.zeros(64), "fc1000_w": torch.zeros(1)}
    for key in body.state_dict():
        if key.endswith(("running_mean", "running_var")):
            continue
        new = key.replace("conv1.weight", "conv1_w") if key.startswith("conv1.") else key
        new = re.sub(r"^bn1\.weight", "res_conv1_bn_s", new)
        new = re.sub(r"^bn1\.bias", "res_conv1_bn_b", new)
        new = re.sub(r"layer(\d)\.(\d+)\.", lambda m: f"res{int(m[1]) + 1}_{m[2]}_", new)
        for k, letter in enumerate("abc", 1):
            new = new.replace(f"conv{k}.weight", f"branch2{letter}_w") if key.startswith("layer") else new
            new = new.replace(f"bn{k}.weight", f"branch2{letter}_bn_s").replace(f"bn{k}.bias", f"branch2{letter}_bn_b")
        new = new.replace("downsample.0.weight", "branch1_w")
        new = new.replace("downsample.1.weight", "branch1_bn_s").replace("downsample.1.bias", "branch1_bn_b")
        foreign[new] = torch.rand(body.state_dict()[key].shape)
    return foreign


def test_imagenet_weights_of_caffe(tmp_path: Path) -> None:
    foreign = caffe2_resnet50()
    found = from_caffe2(foreign)
    assert found.unused == [] and len(found.ignored) == 2
    torch.save(found.weights, tmp_path / "r50.pt")
    config = BackboneConfig("resnet50", str(tmp_path / "r50.pt"), stride_in_1x1=True, channel_order="bgr")
    loaded = ResNet(config).state_dict()
    assert torch.equal(loaded["layer1.0.conv2.weight"], foreign["res2_0_branch2b_w"])
    assert torch.equal(loaded["layer4.2.bn3.bias"], foreign["res5_2_branch2c_bn_b"])
    assert float(loaded["bn1.running_var"][0]) + 1e-5 == pytest.approx(1, abs=1e-7)


def test_classes_of_published_models() -> None:
    assert len(published_categories(90, True)) == 90 and published_categories(90, True)[89]["name"] == "toothbrush"
    assert published_categories(90, True)[11]["name"] == "(unused 12)"
    coco = published_categories(80, False)
    assert [coco[k]["id"] for k in (0, 11, 79)] == [1, 13, 90] and coco[11]["name"] == "stop sign"
    assert published_categories(8, False)[1] == {"id": 25, "name": "rider"}
    assert published_categories(3, False)[2] == {"id": 3, "name": "class 3"}


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_are_read(protocol: int, tmp_path: Path) -> None:
    arrays = OrderedDict(
        a=np.arange(6, dtype=np.float32).reshape(2, 3), b=np.float64(3), c=np.asfortranarray(np.eye(3))
    )
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "them"}, protocol=protocol))
    found = read_weights(path)
    assert set(found) == {"a", "c"} and found["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert torch.equal(found["c"], torch.eye(3, dtype=torch.float64))


class Hostile:
    """Runs a command when unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def hostile(marker: Path) -> dict[str, Any]:
    command = f"touch {marker}"
    inside = np.empty(1, object)
    inside[0] = Hostile(os.system, command)
    return {
        "system": Hostile(os.system, command),
        "eval": {"model": {"a": Hostile(eval, f"__import__('os').system({command!r})")}},
        "getattr": [np.zeros(2), Hostile(getattr, os, "system")],
        "objects": {"a": inside},
        "codec": Hostile(__import__("_codecs").encode, "x", "zlib"),
        "numpy": Hostile(np.load, str(marker)),
    }


@pytest.mark.parametrize("kind", ["system", "eval", "getattr", "objects", "codec", "numpy"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_anything_else_is_refused_and_not_executed(kind: str, protocol: int, tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "weights.pkl"
    try:
        path.write_bytes(pickle.dumps(hostile(marker)[kind], protocol=protocol))
    except TypeError:  # a module cannot be pickled: spelled out by hand
        path.write_bytes(b"cbuiltins\ngetattr\n(cos\nsystem\nV__call__\ntR.")
    with pytest.raises(InputError, match="refused, nothing was executed"):
        read_weights(path)
    assert not marker.exists()


def test_broken_files_are_told(tmp_path: Path) -> None:
    for name, contents, message in [
        ("cut.pkl", pickle.dumps({"a": np.zeros(99)})[:50], "is no pickle of numpy arrays"),
        ("text.pth", b"hello", "cannot be read as weights"),
        ("list.pkl", pickle.dumps([1, 2]), "holds no weights by name"),
        ("none.pkl", pickle.dumps({"a": 1}), "holds no weights"),
    ]:
        (tmp_path / name).write_bytes(contents)
        with pytest.raises(InputError, match=message):
            read_weights(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read_weights(tmp_path / "nothing.pkl")


def test_another_model_is_told() -> None:
    with pytest.raises(InputError, match=r"file: no ResNet-50, ResNet-101 or ResNeXt-101 of Detectron2"):
        from_detectron2({"a": torch.zeros(1)}, "file")
