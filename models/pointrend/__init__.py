"""PointRend on Mask R-CNN (Kirillov et al., CVPR 2020): masks predicted point by point, where they are uncertain."""

from models.pointrend.config import PointRendConfig, detectron2
from models.pointrend.model import PointRend

__all__ = ["PointRend", "PointRendConfig", "detectron2"]
