"""Mask R-CNN: proposals, boxes, and a soft mask inside each box."""

from models.mask_rcnn.config import MaskRCNNConfig, detectron2, original, torchvision, torchvision_v2
from models.mask_rcnn.model import MaskRCNN

__all__ = ["MaskRCNN", "MaskRCNNConfig", "detectron2", "original", "torchvision", "torchvision_v2"]
