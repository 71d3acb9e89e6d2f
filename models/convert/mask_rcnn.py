"""Mask R-CNN of torchvision and of Detectron2.

Here the background is the last class, as in Detectron2; torchvision has it first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.convert.backbones import NORM, body_of, detectron2_rules
from models.convert.names import Renamed, rename
from models.mask_rcnn import MaskRCNNConfig, detectron2, torchvision, torchvision_v2

_PART = r"(weight|bias)"


def from_torchvision(weights: dict[str, Tensor]) -> tuple[MaskRCNNConfig, Renamed]:
    """Configuration and weights of maskrcnn_resnet50_fpn or its v2, by names of today or before torchvision 0.14."""
    second = "rpn.head.conv.1.0.weight" in weights
    rules = [
        (rf"(backbone\.body\..*\.{NORM})", r"\1"),
        (rf"(backbone\.fpn\.(inner|layer)_blocks\.\d\.[01]\.{NORM})", r"\1"),
        (rf"(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.{_PART}", r"\1.0.\2"),
        (rf"rpn\.head\.conv\.(\d)\.0\.{_PART}", r"rpn.convs.\1.\2"),
        (rf"rpn\.head\.conv\.{_PART}", r"rpn.convs.0.\1"),
        (rf"rpn\.head\.cls_logits\.{_PART}", r"rpn.objectness.\1"),
        (rf"rpn\.head\.bbox_pred\.{_PART}", r"rpn.deltas.\1"),
        (rf"roi_heads\.box_head\.fc6\.{_PART}", r"box_head.fcs.0.\1"),
        (rf"roi_heads\.box_head\.fc7\.{_PART}", r"box_head.fcs.1.\1"),
        (rf"roi_heads\.box_head\.5\.{_PART}", r"box_head.fcs.0.\1"),
        (rf"roi_heads\.box_head\.([0-3])\.([01])\.{NORM}", r"box_head.convs.\1.\2.\3"),
        (rf"roi_heads\.box_predictor\.cls_score\.{_PART}", r"box_head.scores.\1"),
        (rf"roi_heads\.box_predictor\.bbox_pred\.{_PART}", r"box_head.deltas.\1"),
        (rf"roi_heads\.mask_head\.([0-3])\.([01])\.{NORM}", r"mask_head.convs.\1.\2.\3"),
        *((rf"roi_heads\.mask_head\.mask_fcn{k + 1}\.{_PART}", rf"mask_head.convs.{k}.0.\1") for k in range(4)),
        (rf"roi_heads\.mask_predictor\.conv5_mask\.{_PART}", r"mask_head.deconv.\1"),
        (rf"roi_heads\.mask_predictor\.mask_fcn_logits\.{_PART}", r"mask_head.logits.\1"),
    ]
    config = torchvision_v2() if second else torchvision()
    config.backbone.weights = "none"
    found = rename(weights, rules, [] if second else [r".*\.num_batches_tracked"])
    for key, value in found.weights.items():
        if key.startswith("box_head.scores."):
            found.weights[key] = torch.cat([value[1:], value[:1]])
        elif key.startswith("box_head.deltas."):
            found.weights[key] = value[4:]
        elif key.startswith("mask_head.logits."):
            found.weights[key] = value[1:]
    scores = found.weights.get("box_head.scores.bias")
    if not second and scores is not None and len(scores) == 91:
        config.backbone.norm_eps = 0.0  # what torchvision's loader sets for its weights trained on COCO, and no others
    return config, found


IGNORED = [r"pixel_(mean|std)", r".*cell_anchors\..*", r".*\.num_batches_tracked"]
"""What Detectron2's files hold that is of no use."""


def detector_rules() -> list[tuple[str, str]]:
    """Renaming rules for everything in front of Detectron2's mask branch."""
    return [
        *detectron2_rules(finest=2),
        (rf"proposal_generator\.rpn_head\.conv\.{_PART}", r"rpn.convs.0.\1"),
        (rf"proposal_generator\.rpn_head\.objectness_logits\.{_PART}", r"rpn.objectness.\1"),
        (rf"proposal_generator\.rpn_head\.anchor_deltas\.{_PART}", r"rpn.deltas.\1"),
        *((rf"roi_heads\.box_head\.fc{k + 1}\.{_PART}", rf"box_head.fcs.{k}.\1") for k in range(2)),
        (rf"roi_heads\.box_predictor\.cls_score\.{_PART}", r"box_head.scores.\1"),
        (rf"roi_heads\.box_predictor\.bbox_pred\.{_PART}", r"box_head.deltas.\1"),
    ]


def from_detectron2(weights: dict[str, Tensor], source: str) -> tuple[MaskRCNNConfig, Renamed]:
    """Configuration and weights of Detectron2's mask_rcnn_{R_50,R_101,X_101_32x8d}_FPN."""
    config = detectron2(body_of(weights, source))
    rules = [
        *detector_rules(),
        *((rf"roi_heads\.mask_head\.mask_fcn{k + 1}\.{_PART}", rf"mask_head.convs.{k}.0.\1") for k in range(4)),
        (rf"roi_heads\.mask_head\.deconv\.{_PART}", r"mask_head.deconv.\1"),
        (rf"roi_heads\.mask_head\.predictor\.{_PART}", r"mask_head.logits.\1"),
    ]
    config.backbone.weights = "none"
    return config, rename(weights, rules, IGNORED)
