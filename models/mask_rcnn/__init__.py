"""Mask R-CNN: proposals, boxes, and a soft mask inside each box."""

from models.mask_rcnn.config import Body, MaskRCNNConfig, detectron2, original, torchvision, torchvision_v2
from models.mask_rcnn.model import MaskRCNN

__all__ = ["Body", "MaskRCNN", "MaskRCNNConfig", "detectron2", "original", "torchvision", "torchvision_v2"]
