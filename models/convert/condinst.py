"""CondInst's released checkpoints (AdelaiDet)."""

from __future__ import annotations

from torch import Tensor

from models.backbone import caffe_body
from models.condinst import CondInstConfig
from models.convert.backbones import NORM, body_of, detectron2_rules, fcos_rules, join_scales
from models.convert.names import Renamed, rename

_PART = r"(weight|bias)"


def from_adelaidet(weights: dict[str, Tensor], source: str) -> tuple[CondInstConfig, Renamed]:
    """Configuration and weights of CondInst_MS_R_50_1x, 3x or 3x_sem, or those with R_101; none with a BiFPN."""
    branch = r"mask_branch"
    rules = [
        *detectron2_rules(finest=3),
        *fcos_rules(r"proposal_generator\.fcos_head"),
        (rf"controller\.{_PART}", r"controller.\1"),
        (rf"{branch}\.((?:refine|tower)\.\d\.0\.weight)", r"mask_branch.\1"),
        (rf"{branch}\.((?:refine|tower)\.\d\.1\.{NORM})", r"mask_branch.\1"),
        (rf"{branch}\.tower\.4\.{_PART}", r"mask_branch.output.\1"),
        (rf"{branch}\.seg_head\.(\d)\.0\.weight", r"mask_branch.semantic.\1.0.weight"),
        (rf"{branch}\.seg_head\.(\d)\.1\.{NORM}", r"mask_branch.semantic.\1.1.\2"),
        (rf"{branch}\.logits\.{_PART}", r"mask_branch.semantic.2.\1"),
    ]
    found = rename(weights, rules, [r"pixel_(mean|std)", r"mask_head\.(sizes_of_interest|_iter)"])
    config = CondInstConfig(backbone=caffe_body(body_of(weights, source), "none"))
    config.semantic = any(key.startswith("mask_branch.semantic.") for key in found.weights)
    return config, join_scales(found)
