"""RefineMask's released checkpoints (mmdet)."""

from __future__ import annotations

import re

from torch import Tensor

from models.convert.backbones import NORM
from models.convert.names import Renamed, rename
from models.refinemask import RefineMaskConfig
from sharpcontour.errors import InputError

_PART = r"(weight|bias)"


def from_refinemask(weights: dict[str, Tensor], source: str) -> tuple[RefineMaskConfig, Renamed]:
    """Configuration and weights of r50- or r101-refinemask, of COCO or Cityscapes.

    The variant "faster-better" has another network and is not covered.
    """
    if any("stage_instance_logits" in key for key in weights):
        raise InputError(f"{source}: is RefineMask's variant faster-better, which is not covered; take r50-refinemask")
    config = RefineMaskConfig()
    depth = sum(bool(re.fullmatch(r"backbone\.layer3\.\d+\.conv1\.weight", key)) for key in weights)
    if depth not in (6, 23):
        raise InputError(f"{source}: no ResNet-50 or ResNet-101 by mmdet's names in it")
    config.backbone.name, config.backbone.weights = "resnet50" if depth == 6 else "resnet101", "none"
    return config, rename(weights, _rules(), [])


def _rules() -> list[tuple[str, str]]:
    mask, stage = r"roi_head\.mask_head", r"roi_head\.mask_head\.stages\.(\d)"
    here = r"refine_head.stages.\1"
    return [
        (rf"backbone\.((?:conv1|bn1|layer\d\..*)\.{NORM})", r"backbone.body.\1"),
        (rf"neck\.lateral_convs\.(\d)\.conv\.{_PART}", r"backbone.fpn.inner_blocks.\1.0.\2"),
        (rf"neck\.fpn_convs\.(\d)\.conv\.{_PART}", r"backbone.fpn.layer_blocks.\1.0.\2"),
        (rf"rpn_head\.rpn_conv\.{_PART}", r"rpn.convs.0.\1"),
        (rf"rpn_head\.rpn_cls\.{_PART}", r"rpn.objectness.\1"),
        (rf"rpn_head\.rpn_reg\.{_PART}", r"rpn.deltas.\1"),
        (rf"roi_head\.bbox_head\.shared_fcs\.(\d)\.{_PART}", r"box_head.fcs.\1.\2"),
        (rf"roi_head\.bbox_head\.fc_cls\.{_PART}", r"box_head.scores.\1"),
        (rf"roi_head\.bbox_head\.fc_reg\.{_PART}", r"box_head.deltas.\1"),
        (rf"{mask}\.instance_convs\.(\d)\.conv\.{_PART}", r"refine_head.convs.\1.0.\2"),
        (rf"{mask}\.semantic_convs\.(\d)\.conv\.{_PART}", r"refine_head.semantic_convs.\1.0.\2"),
        (rf"{mask}\.semantic_logits\.{_PART}", r"refine_head.semantic_logits.\1"),
        (rf"{stage}\.semantic_transform_in\.{_PART}", rf"{here}.semantic_in.\2"),
        (rf"{stage}\.semantic_transform_out\.{_PART}", rf"{here}.semantic_out.\2"),
        (rf"{stage}\.instance_logits\.{_PART}", rf"{here}.logits.\2"),
        (rf"{stage}\.fuse_conv\.0\.{_PART}", rf"{here}.fuse.\2"),
        *(
            (rf"{stage}\.fuse_conv\.1\.dilation_conv_{k + 1}\.conv\.{_PART}", rf"{here}.branches.{k}.0.\2")
            for k in range(3)
        ),
        (rf"{stage}\.fuse_conv\.1\.merge_conv\.conv\.{_PART}", rf"{here}.merge.\2"),
        (rf"{stage}\.fuse_transform_out\.{_PART}", rf"{here}.out.\2"),
        (rf"{mask}\.final_instance_logits\.{_PART}", r"refine_head.logits.\1"),
    ]
