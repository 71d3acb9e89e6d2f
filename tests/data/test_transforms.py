"""Resizing, rasterising on crops, flipping."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data import transforms
from data.transforms import Crop, Instances, drop_empty, flip_instances, polygons_to_crop, resize_mask


def dense(crop: Crop, height: int, width: int) -> np.ndarray:
    full = np.zeros((height, width), np.uint8)
    h, w = crop.mask.shape
    full[crop.y0 : crop.y0 + h, crop.x0 : crop.x0 + w] = crop.mask
    return full


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((300, 900), (444, 1333)), ((1, 1), (800, 800))],
)
def test_resize_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert transforms.network_size(*size, 800, 1333) == expected


def test_long_thin_images_keep_a_pixel() -> None:
    assert transforms.network_size(1, 12000, 800, 1333) == (1, 1333)


@pytest.mark.parametrize("seed", range(60))
def test_rasterising_on_a_crop_equals_the_whole_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(20, 90, 2))
    polygons = []
    for _ in range(int(rng.integers(1, 4))):
        angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 12))))
        radius = rng.uniform(1, 30) * rng.uniform(0.3, 1, len(angle))
        centre = rng.uniform(-10, [width + 10, height + 10])
        polygons.append((centre + np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]).astype(np.float32))
    flat = [polygon.astype(np.float64).ravel() for polygon in polygons]
    whole = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width)))
    np.testing.assert_array_equal(dense(polygons_to_crop(polygons, height, width), height, width), whole)


def test_polygon_off_the_image_is_empty() -> None:
    triangle = np.array([[100, 100], [120, 100], [110, 130]], np.float32)
    assert polygons_to_crop([triangle], 50, 60).mask.size == 0


def test_stray_vertex_costs_no_time() -> None:
    spike = np.array([[5, 5], [1e9, 6], [5, 20]], np.float32)
    assert polygons_to_crop([spike], 40, 40).mask.any()


def test_parts_are_united_not_cancelled() -> None:
    a = np.array([[5, 5], [25, 5], [25, 25], [5, 25]], np.float32)
    assert polygons_to_crop([a, a + 10], 50, 50).mask.sum() == 400 + 400 - 100
    assert polygons_to_crop([a, a], 50, 50).mask.sum() == 400


def instances() -> Instances:
    ring = np.array([[3.5, 4], [12, 4], [12, 9], [3.5, 9]], np.float32)
    mask = np.zeros((5, 9), np.uint8)
    mask[:, :4] = 1
    return Instances(
        np.array([[3.5, 4, 12, 9]], np.float32), np.array([2]), [[ring]], [Crop(3, 4, mask)], np.array([1])
    )


def test_flip_of_boxes_rings_and_masks() -> None:
    before, after = instances(), flip_instances(instances(), 20)
    np.testing.assert_array_equal(after.boxes, [[8, 4, 16.5, 9]])
    np.testing.assert_array_equal(dense(after.masks[0], 12, 20), dense(before.masks[0], 12, 20)[:, ::-1])
    np.testing.assert_array_equal(np.sort(after.rings[0][0][:, 0]), [8, 8, 16.5, 16.5])
    twice = flip_instances(after, 20)
    np.testing.assert_array_equal(twice.rings[0][0], before.rings[0][0])
    np.testing.assert_array_equal(twice.boxes, before.boxes)


def test_boxes_are_clipped_and_empty_objects_left_out() -> None:
    one = instances()
    boxes = np.concatenate([one.boxes, [[-5, -5, 8, 8], [30, 0, 40, 5]], one.boxes]).astype(np.float32)
    empty = Crop(0, 0, np.zeros((0, 0), np.uint8))
    many = Instances(boxes, np.arange(4), one.rings * 4, [*one.masks * 3, empty], np.ones(4, np.int64))
    kept = drop_empty(many, 12, 20)
    assert kept.labels.tolist() == [0, 1] and len(kept.rings) == len(kept.masks) == 2
    np.testing.assert_array_equal(kept.boxes[1], [0, 0, 8, 8])


def test_mask_of_half_the_size() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 3:8] = 1
    half = resize_mask(mask, 4, 4)
    assert half[1:3, 2:].all() and half.sum() == 2 * 3  # the half-covered column counts
    np.testing.assert_array_equal(resize_mask(mask, 8, 8), mask.astype(bool))
