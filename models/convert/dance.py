"""DANCE's released checkpoints."""

from __future__ import annotations

from torch import Tensor

from models.backbone import caffe_body
from models.convert.backbones import NORM, body_of, detectron2_rules, fcos_rules, join_scales
from models.convert.names import Renamed, rename
from models.dance import DanceConfig

_PART = r"(weight|bias)"


def from_dance(weights: dict[str, Tensor], source: str) -> tuple[DanceConfig, Renamed]:
    """Configuration and weights of Dance_R_50_3x or Dance_R_101_3x."""
    branch = r"refinement_head"
    rules = [
        *detectron2_rules(finest=2),
        *fcos_rules(r"proposal_generator\.fcose_head"),
        *((rf"{branch}\.p{k + 2}\.(\d)\.weight", rf"branch.merge.levels.{k}.\1.0.weight") for k in range(4)),
        *((rf"{branch}\.p{k + 2}\.(\d)\.norm\.{_PART}", rf"branch.merge.levels.{k}.\1.1.\2") for k in range(4)),
        (rf"{branch}\.predictor\.0\.weight", "branch.predictor.0.0.weight"),
        (rf"{branch}\.predictor\.0\.norm\.{_PART}", r"branch.predictor.0.1.\1"),
        (rf"{branch}\.predictor\.1\.{_PART}", r"branch.predictor.1.\1"),
        (rf"{branch}\.attender\.0\.weight", "branch.attender.0.weight"),
        (rf"{branch}\.attender\.0\.norm\.{_PART}", r"branch.attender.1.\1"),
        (rf"{branch}\.attender\.1\.weight", "branch.attender.3.weight"),
        (rf"{branch}\.attender\.1\.norm\.{_PART}", r"branch.attender.4.\1"),
        (rf"{branch}\.attender\.2\.{_PART}", r"branch.attender.6.\1"),
        (rf"{branch}\.refine_head\.bottom_out\.(\d)\.weight", r"branch.features.\1.0.weight"),
        (rf"{branch}\.refine_head\.bottom_out\.(\d)\.norm\.{_PART}", r"branch.features.\1.1.\2"),
    ]
    snake = rf"{branch}\.refine_head\.deformer(\d)"
    rules += [
        (rf"{snake}\.head\.conv\.fc\.{_PART}", r"branch.snakes.\1.head.conv.\2"),
        (rf"{snake}\.head\.norm\.{NORM}", r"branch.snakes.\1.head.norm.\2"),
        (rf"{snake}\.res(\d)\.conv\.fc\.{_PART}", r"branch.snakes.\1.residual.\2.conv.\3"),
        (rf"{snake}\.res(\d)\.norm\.{NORM}", r"branch.snakes.\1.residual.\2.norm.\3"),
        (rf"{snake}\.fusion\.{_PART}", r"branch.snakes.\1.fusion.\2"),
        (rf"{snake}\.prediction\.([02])\.{_PART}", r"branch.snakes.\1.hidden.\2.\3"),
        (rf"{snake}\.prediction\.4\.{_PART}", r"branch.snakes.\1.offset.\2"),
    ]
    found = join_scales(rename(weights, rules, [r"pixel_(mean|std)"]))
    return DanceConfig(backbone=caffe_body(body_of(weights, source), "none")), found
