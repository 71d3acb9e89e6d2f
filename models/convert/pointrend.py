"""PointRend of Detectron2's project of that name."""

from __future__ import annotations

from torch import Tensor

from models.convert.backbones import body_of
from models.convert.mask_rcnn import IGNORED, detector_rules
from models.convert.names import Renamed, rename
from models.pointrend import PointRendConfig, detectron2

_PART = r"(weight|bias)"
# Files written before the heads moved into one another have the second name.
_COARSE = r"roi_heads\.(?:mask_head\.coarse_head|mask_coarse_head)"
_POINT = r"roi_heads\.(?:mask_head\.point_head|mask_point_head)"


def is_pointrend(weights: dict[str, Tensor]) -> bool:
    """Whether a Detectron2 file is one of PointRend and not of Mask R-CNN."""
    return any("point_head." in key for key in weights)


def from_pointrend(weights: dict[str, Tensor], source: str) -> tuple[PointRendConfig, Renamed]:
    """Configuration and weights of pointrend_rcnn_{R_50,R_101,X_101_32x8d}_FPN, of COCO or Cityscapes."""
    config = detectron2(body_of(weights, source))
    rules = [
        *detector_rules(),
        (rf"{_COARSE}\.reduce_spatial_dim_conv\.{_PART}", r"coarse_head.reduce.\1"),
        *((rf"{_COARSE}\.(?:coarse_mask_)?fc{k + 1}\.{_PART}", rf"coarse_head.fcs.{k}.\1") for k in range(2)),
        (rf"{_COARSE}\.prediction\.{_PART}", r"coarse_head.predictor.\1"),
        *((rf"{_POINT}\.fc{k + 1}\.{_PART}", rf"point_head.fcs.{k}.\1") for k in range(3)),
        (rf"{_POINT}\.predictor\.{_PART}", r"point_head.predictor.\1"),
    ]
    config.backbone.weights = "none"
    return config, rename(weights, rules, IGNORED)
