"""Resizing as the models' own pipelines do it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from data.transforms import network_size, resize_image
from engine.recipes import RECIPES

SIZES = [(480, 640), (640, 427), (300, 500), (334, 500), (120, 900), (1500, 1000)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_as_torchvision_does(height: int, width: int) -> None:
    image = noise(height, width)
    transform = GeneralizedRCNNTransform(200, 333, [0.0] * 3, [1.0] * 3)
    wanted = transform.resize(torch.from_numpy(image).permute(2, 0, 1) / 255)[0]
    found = resize_image(image, 200, 333, "torchvision")
    assert found.dtype == np.float32 and found.shape[:2] == network_size(height, width, 200, 333, "torchvision")
    torch.testing.assert_close(torch.from_numpy(found).permute(2, 0, 1) / 255, wanted, atol=1e-6, rtol=0)


def test_torchvisions_sizes_are_rounded_down() -> None:
    assert network_size(480, 640, 800, 1333, "torchvision") == (800, 1066)
    assert network_size(300, 500, 800, 1333, "torchvision") == (799, 1333)
    assert network_size(480, 640, 800, 1333) == (800, 1067)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_as_pillow_does(height: int, width: int) -> None:
    image = noise(height, width)
    rows, columns = network_size(height, width, 200, 333, "detectron2")
    wanted = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))
    found = resize_image(image, 200, 333, "detectron2")
    assert found.dtype == np.uint8 and np.array_equal(found, wanted) and found.flags.writeable


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_as_mmcv_does(height: int, width: int) -> None:
    """OpenCV's bilinear also where the image shrinks, and one factor that both sides are rounded from."""
    image = noise(height, width)
    factor = min(333 / max(height, width), 200 / min(height, width))
    size = (int(height * factor + 0.5), int(width * factor + 0.5))
    assert network_size(height, width, 200, 333, "mmcv") == size
    assert network_size(15, 310, 800, 1333, "mmcv") == (65, 1333) != network_size(15, 310, 800, 1333)
    wanted = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resize_image(image, 200, 333, "mmcv"), wanted)


def test_refinemask_is_trained_as_it_was_published() -> None:
    found = {name for name, recipe in RECIPES.items() if name.startswith("refinemask")}
    assert found == {name for name in found if RECIPES[name]("refinemask", False).data.resize == "mmcv"} != set()


@pytest.mark.parametrize("mode", ["opencv", "detectron2", "torchvision", "mmcv"])
def test_the_thinnest_images_keep_a_pixel(mode: Any) -> None:
    image = np.zeros((1, 5000, 3), np.uint8)
    assert resize_image(image, 800, 1333, mode).shape[0] == 1
