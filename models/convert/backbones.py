"""Bodies, pyramids and detectors of models built on Detectron2, and Caffe's ImageNet weights that they begin from."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from models.backbone import CaffeBody
from models.convert.names import Renamed, rename
from sharpcontour.errors import InputError

NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"


def _stages(before: str) -> list[tuple[str, str]]:
    """res2 to res5 are layer1 to layer4."""
    rules = []
    for stage in range(2, 6):
        here, there = rf"{before}res{stage}", rf"backbone.body.layer{stage - 1}"
        rules += [
            (rf"{here}\.(\d+)\.conv(\d)\.weight", rf"{there}.\1.conv\2.weight"),
            (rf"{here}\.(\d+)\.conv(\d)\.norm\.{NORM}", rf"{there}.\1.bn\2.\3"),
            (rf"{here}\.0\.shortcut\.weight", rf"{there}.0.downsample.0.weight"),
            (rf"{here}\.0\.shortcut\.norm\.{NORM}", rf"{there}.0.downsample.1.\1"),
        ]
    return rules


def detectron2_rules(finest: int) -> list[tuple[str, str]]:
    """Renaming rules for body and pyramid of a Detectron2 model whose pyramid begins at level ``finest``."""
    rules = [
        (r"backbone\.bottom_up\.stem\.conv1\.weight", "backbone.body.conv1.weight"),
        (rf"backbone\.bottom_up\.stem\.conv1\.norm\.{NORM}", r"backbone.body.bn1.\1"),
        *_stages(r"backbone\.bottom_up\."),
        (r"backbone\.top_block\.p([67])\.(weight|bias)", r"backbone.fpn.extra_blocks.p\1.\2"),
    ]
    for level in range(finest, 6):
        for old, new in (("lateral", "inner_blocks"), ("output", "layer_blocks")):
            rules.append((rf"backbone\.fpn_{old}{level}\.(weight|bias)", rf"backbone.fpn.{new}.{level - finest}.0.\1"))
    return rules


def fcos_rules(head: str) -> list[tuple[str, str]]:
    """Renaming rules for an FCOS head under the name ``head``, a regular expression."""
    return [
        (rf"{head}\.((?:cls|bbox)_tower\.\d+\.(?:weight|bias))", r"detector.head.\1"),
        (rf"{head}\.((?:cls_logits|bbox_pred|ctrness|extrm_pred)\.(?:weight|bias))", r"detector.head.\1"),
        (rf"{head}\.scales\.(\d)\.scale", r"detector.head.scales.\1"),
    ]


def join_scales(found: Renamed) -> Renamed:
    """Join the scales of an FCOS head, one parameter for each level, in the one parameter that FCOS has here."""
    scales = sorted(key for key in found.weights if key.startswith("detector.head.scales."))
    if scales:
        found.weights["detector.head.scales"] = torch.cat([found.weights.pop(key).view(1) for key in scales])
    return found


def body_of(weights: dict[str, Tensor], source: str) -> CaffeBody:
    """The name of the body that a Detectron2 file holds, told by the shapes of its weights."""
    conv = weights.get("backbone.bottom_up.res3.0.conv2.weight")
    depth = sum(bool(re.fullmatch(r"backbone\.bottom_up\.res4\.\d+\.conv1\.weight", key)) for key in weights)
    if conv is None or depth not in (6, 23):
        raise InputError(f"{source}: no ResNet-50, ResNet-101 or ResNeXt-101 of Detectron2 in it")
    if depth == 6:
        return "resnet50"
    return "resnext101_32x8d" if conv.shape[1] != conv.shape[0] else "resnet101"


def from_caffe2(weights: dict[str, Tensor]) -> Renamed:
    """An ImageNet body by Caffe2's names (MSRA/R-50.pkl, ...) -> torchvision's, for ``backbone.weights``."""
    parts = {"s": "weight", "gamma": "weight", "b": "bias", "beta": "bias", "running_mean": "running_mean"}
    parts |= {"rm": "running_mean", "running_var": "running_var", "riv": "running_var"}
    rules = [(r"conv1_w", "conv1.weight")]
    rules += [(rf"res_conv1_bn_{old}", f"bn1.{new}") for old, new in parts.items()]
    for stage in range(2, 6):
        for branch, conv in (("2a", "1"), ("2b", "2"), ("2c", "3")):
            where = rf"res{stage}_(\d+)_branch{branch}"
            rules.append((rf"{where}_w", rf"layer{stage - 1}.\1.conv{conv}.weight"))
            rules += [(rf"{where}_bn_{old}", rf"layer{stage - 1}.\1.bn{conv}.{new}") for old, new in parts.items()]
        where = rf"res{stage}_0_branch1"
        rules.append((rf"{where}_w", rf"layer{stage - 1}.0.downsample.0.weight"))
        rules += [(rf"{where}_bn_{old}", rf"layer{stage - 1}.0.downsample.1.{new}") for old, new in parts.items()]
    found = rename(weights, rules, [r"conv1_b", r"(fc1000|pred)_[wb]", r".*_momentum", r"lr"])
    return with_statistics(found)


def with_statistics(found: Renamed) -> Renamed:
    """Caffe folded the statistics of its norms into weight and bias: mean 0 and variance 1 take their place.

    The variance is a little less than 1, so that the epsilon that is added makes it 1.
    """
    for key in [key for key in found.weights if re.search(r"(bn\d|downsample\.1)\.weight$", key)]:
        mean = key.removesuffix("weight") + "running_mean"
        if mean not in found.weights:
            found.weights[mean] = found.weights[key].new_zeros(found.weights[key].shape)
            variance = key.removesuffix("weight") + "running_var"
            found.weights[variance] = found.weights[key].new_full(found.weights[key].shape, 1 - 1e-5)
    return found
