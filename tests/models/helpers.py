"""Drawn images with targets, and hosts small enough for a unit test."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from models.backbone import BackboneConfig
from models.condinst import CondInstConfig
from models.dance import DanceConfig
from models.deepsnake import DeepSnakeConfig
from models.fcos.detector import FCOSConfig
from models.mask_rcnn import MaskRCNNConfig
from models.mask_rcnn.mask_head import MaskHeadConfig
from models.pointrend import PointRendConfig
from models.pointrend.heads import CoarseHeadConfig, PointHeadConfig
from models.refinemask import RefineMaskConfig
from models.refinemask.heads import RefineHeadConfig
from models.snake.network import SnakeConfig
from sharpcontour.contours.lazy_masks import LazyMasks
from sharpcontour.contours.tracing import trace_mask
from tests.sharpcontour.helpers import packed_masks


def tiny_config(width: int = 16) -> DanceConfig:
    """DANCE in all its parts, each as small as can be."""
    return DanceConfig(
        backbone=BackboneConfig("resnet10", "none", "bn", width=width, fpn_channels=32),
        fcos=FCOSConfig(num_convs=1, extreme_points=True),
        channels=32,
        attender_channels=8,
        feature_convs=1,
        snake=SnakeConfig(channels=16, pooled=32, hidden=16),
    )


def drawn(seed: int, objects: int, height: int = 96, width: int = 128) -> tuple[Tensor, dict[str, Any]]:
    """An image of bright ellipses on black, side by side, and its target as a data set makes it."""
    rng = np.random.default_rng(seed)
    image, masks = np.zeros((height, width, 3), np.uint8), []
    for i in range(objects):
        mask = np.zeros((height, width), np.uint8)
        slot = width / objects
        centre = (int((i + 0.5) * slot), int(rng.integers(height // 3, 2 * height // 3)))
        axes = (int(rng.uniform(0.25, 0.4) * slot), int(rng.uniform(0.12, 0.28) * height))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 30)), 0, 360, 1, -1)
        image[mask > 0] = rng.integers(90, 255, 3)
        masks.append(mask)
    return torch.from_numpy(image).permute(2, 0, 1).contiguous(), target_of(np.array(masks, np.uint8), height, width)


def prepared(model: Any, *counts: int, scale: int = 1) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Images with so many objects, the second one smaller than the others, and their targets."""
    shapes = [(96 * scale, 128 * scale), (80 * scale, 100 * scale), (96 * scale, 128 * scale)]
    samples = [drawn(i, count, *shape) for i, (count, shape) in enumerate(zip(counts, shapes, strict=False))]
    rng = np.random.default_rng(0)
    return [image for image, _ in samples], [model.target_builder(target, rng) for _, target in samples]


def target_of(masks: np.ndarray, height: int, width: int) -> dict[str, Any]:
    masks = masks.reshape(-1, height, width)
    rings = [trace_mask(mask) for mask in masks]
    boxes = [[*np.concatenate(r).min(0), *np.concatenate(r).max(0)] for r in rings]
    return {
        "image_id": 1,
        "size": (height, width),
        "boxes": torch.tensor(np.array(boxes, np.float32).reshape(-1, 4)),
        "labels": torch.arange(len(masks)) % 2,
        "masks": packed_masks(masks),
        "rings": rings,
        "polygon_parts": torch.ones(len(masks), dtype=torch.int64),
    }


def smaller(config: Any, width: int) -> Any:
    """A two-stage model's configuration, its detector as small as can be."""
    config.backbone = BackboneConfig("resnet10", "none", "bn", width=width, fpn_channels=32)
    config.rpn.sizes, config.rpn.batch = (16.0, 32.0, 64.0, 128.0, 256.0), 64
    config.rpn.pre_nms_train, config.rpn.pre_nms_test, config.rpn.post_nms_test = 200, 100, 50
    config.box_head.channels, config.box_head.batch = 64, 64
    return config


def tiny_mask_rcnn(width: int = 16) -> MaskRCNNConfig:
    """Mask R-CNN in all its parts, each as small as can be."""
    return smaller(MaskRCNNConfig(mask_head=MaskHeadConfig(num_convs=2, channels=32)), width)


def tiny_pointrend(width: int = 16) -> PointRendConfig:
    """PointRend in all its parts, each as small as can be."""
    heads = CoarseHeadConfig(channels=64), PointHeadConfig(channels=32, train_points=49)
    return smaller(PointRendConfig(coarse_head=heads[0], point_head=heads[1]), width)


def tiny_refinemask(width: int = 16) -> RefineMaskConfig:
    """RefineMask in all its parts, each as small as can be."""
    head = RefineHeadConfig(channels=32, instance_convs=1, semantic_convs=1)
    return smaller(RefineMaskConfig(refine_head=head), width)


def tiny_condinst(width: int = 16) -> CondInstConfig:
    """CondInst in all its parts, each as small as can be."""
    return CondInstConfig(
        backbone=BackboneConfig("resnet10", "none", "bn", width=width, fpn_channels=32),
        fcos=FCOSConfig(num_convs=1, threshold_product=True),
        branch_channels=32,
        branch_convs=2,
        semantic=True,
    )


def tiny_deepsnake(width: int = 16) -> DeepSnakeConfig:
    """DeepSnake in all its parts, each as small as can be."""
    return DeepSnakeConfig(
        backbone=BackboneConfig("resnet10", "none", "bn", width=width, fpn_channels=32),
        fcos=FCOSConfig(num_convs=1),
        channels=32,
        feature_convs=1,
        snake=SnakeConfig(channels=16, pooled=32, hidden=16),
    )


TINY: dict[str, Callable[..., Any]] = {
    "condinst": tiny_condinst,
    "dance": tiny_config,
    "deepsnake": tiny_deepsnake,
    "mask_rcnn": tiny_mask_rcnn,
    "pointrend": tiny_pointrend,
    "refinemask": tiny_refinemask,
}
"""By name in models.MODELS; called with the width of the backbone."""


H, W = 60, 90  # of the masks below


def disc(x: float, y: float, radius: float, height: int = H, width: int = W) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width] + 0.5
    return np.hypot(columns - x, rows - y) < radius


def scene() -> np.ndarray:
    """A ring, two parts one of them at the border, one pixel, nothing, everything."""
    masks = np.zeros((5, H, W), bool)
    masks[0] = disc(40, 30, 20) & ~disc(42, 30, 9)
    masks[1] = disc(0, 0, 18) | disc(60, 40, 15)
    masks[2, 33, 71] = True
    masks[4] = True
    return masks


def rle_of(mask: np.ndarray, text: bool = False) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {**rle, "counts": rle["counts"].decode()} if text else rle


def confident(name: str) -> Any:
    """A configuration with which even random weights detect something, as many as tell: their outlines are noise."""
    config = TINY[name]()
    head = config.fcos if hasattr(config, "fcos") else config.box_head
    head.score_threshold, head.max_detections = 0.001, 20
    return config


def free_port() -> int:
    """A port that nobody listens on, for processes that train together."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pasted(masks: LazyMasks, k: int, height: int, width: int) -> np.ndarray:
    """(height, width) float32, the soft mask k on the whole image; 0 where the object cannot be."""
    image = np.zeros((height, width), np.float32)
    x0, y0, values = masks._window(k, height, width)
    image[y0 : y0 + values.shape[0], x0 : x0 + values.shape[1]] = values
    return image
