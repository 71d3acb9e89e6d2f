"""The built-in set: exact outlines, repeatable pictures."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools.coco import COCO

from data import DataConfig, build_dataset
from data.shapes import ShapesDataset
from data.shapes.outlines import CLASSES, place
from data.shapes.regions import Region, contains, outside_of, rasterise, signed_area, subtract
from data.shapes.scene import draw
from eval.diagnostics.study import smoothed_contours
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.errors import InputError

SQUARE = np.array([[2.0, 2], [8, 2], [8, 8], [2, 8]])


def at(ring: np.ndarray, x: float, y: float) -> np.ndarray:
    return ring + np.array([x, y])


def area(region: Region | None) -> float:
    assert region is not None
    return sum(map(signed_area, region))


def test_rasterise_covers_exactly_what_the_polygon_does() -> None:
    coverage, mask = rasterise([at(SQUARE, 0.25, 0.4)], 0, 0, 12, 12)
    assert coverage.sum() == pytest.approx(36, abs=1e-4)
    assert coverage[5, 2] == pytest.approx(0.75)
    assert mask.sum() == 36 and mask[2:8, 2:8].all()
    window_coverage, window_mask = rasterise([at(SQUARE, 0.25, 0.4)], 3, 1, 5, 6)
    np.testing.assert_array_equal(window_mask, mask[1:7, 3:8])
    np.testing.assert_allclose(window_coverage, coverage[1:7, 3:8], atol=1e-6)


@pytest.mark.parametrize("name", list(CLASSES))
def test_outlines_are_simple_oriented_and_of_the_given_radius(name: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        region = place(CLASSES[name], rng, 40.0, np.array([50.0, 50.0]))
        assert signed_area(region[0]) > 0 and all(signed_area(ring) < 0 for ring in region[1:])
        assert np.hypot(*(np.concatenate(region) - 50).T).max() == pytest.approx(40)
        # A ring that crossed itself would enclose less than its coverage says, or more.
        coverage, mask = rasterise(region, 0, 0, 100, 100)
        assert coverage.sum() == pytest.approx(area(region), rel=0.02)
        grid = np.stack(np.meshgrid(np.arange(100) + 0.5, np.arange(100) + 0.5), -1).reshape(-1, 2)
        np.testing.assert_array_equal(contains(region, grid).reshape(100, 100), mask)


def test_subtract() -> None:
    square = [at(SQUARE, 0, 0)]
    corner = subtract(square, [[at(SQUARE, 3.1, 3.2)]])
    assert corner is not None and len(corner) == 1 and len(corner[0]) == 6
    assert area(corner) == pytest.approx(36 - 2.9 * 2.8)
    bar = [np.array([[0.0, 4.5], [20, 4.6], [20, 5.5], [0, 5.4]])]
    parts = subtract(square, [bar])
    assert parts is not None and len(parts) == 2
    small = [at(SQUARE / 3, 3.01, 3.02)]
    holed = subtract(square, [small])
    assert holed is not None and sorted(signed_area(ring) > 0 for ring in holed) == [False, True]
    assert area(holed) == pytest.approx(32)
    assert subtract(small, [square]) == []
    crossing_bars = subtract(square, [bar, [ring[:, ::-1][::-1].copy() for ring in bar]])
    assert crossing_bars is not None and len(crossing_bars) == 4
    assert area(subtract([at(SQUARE, -5, 0)], [outside_of(20, 20)])) == pytest.approx(18)


def test_masks_are_the_pixel_centres_of_the_rings() -> None:
    parts, holes, overlaps = 0, 0, []
    for index in range(60):
        _, objects = draw(np.random.default_rng((5, index)), 192)
        seen = np.zeros((192, 192), int)
        for shape in objects:
            full = np.zeros((192, 192), bool)
            h, w = shape.mask.shape
            full[shape.y0 : shape.y0 + h, shape.x0 : shape.x0 + w] = shape.mask
            seen += full
            _, again = rasterise([ring.astype(np.float64) for ring in shape.rings], 0, 0, 192, 192)
            # Slivers that the rings leave out, and rounding to float32, may cost a pixel.
            assert np.count_nonzero(again != full) <= max(1, 0.01 * full.sum())
            coco = rings_to_masks([shape.rings], 192, 192)[0]
            overlaps.append((coco & full).sum() / (coco | full).sum())
            areas = [signed_area(ring.astype(np.float64)) for ring in shape.rings]
            parts += sum(a > 0 for a in areas) > 1
            holes += any(a < 0 for a in areas)
            assert np.concatenate(shape.rings).min() >= -1e-3 and np.concatenate(shape.rings).max() <= 192 + 1e-3
        assert seen.max(initial=0) <= 1  # every pixel belongs to the foremost object
    assert parts >= 10 and holes >= 5
    assert np.mean(overlaps) > 0.98 and min(overlaps) > 0.85  # pycocotools rounds to a fifth of a pixel


def test_pictures_follow_from_seed_and_index() -> None:
    config = DataConfig(seed=3)
    first, again = build_dataset(config, "train"), build_dataset(config, "train")
    np.testing.assert_array_equal(first[0, 7]["image"], again[0, 7]["image"])
    flips = [np.array_equal(first[epoch, 7]["image"], first[0, 7]["image"]) for epoch in range(8)]
    assert any(flips) and not all(flips)
    assert not np.array_equal(first[-1, 7]["image"], first[-1, 8]["image"])
    assert not np.array_equal(first[-1, 7]["image"], build_dataset(config, "val")[-1, 7]["image"])
    other = build_dataset(DataConfig(seed=4), "val")
    np.testing.assert_array_equal(build_dataset(config, "val")[-1, 7]["image"], other[-1, 7]["image"])


def test_flip_moves_everything() -> None:
    plain = ShapesDataset(DataConfig(flip=0.0), "train")[0, 3]
    flipped = ShapesDataset(DataConfig(flip=1.0), "train")[0, 3]
    np.testing.assert_array_equal(flipped["image"], plain["image"].flip(2))
    a, b = plain["target"], flipped["target"]
    np.testing.assert_array_equal(b["masks"].dense(192, 192), a["masks"].dense(192, 192).flip(2))
    np.testing.assert_allclose(b["boxes"][:, [0, 2]], 192 - a["boxes"][:, [2, 0]])
    np.testing.assert_array_equal(b["boxes"][:, [1, 3]], a["boxes"][:, [1, 3]])
    for rings, boxes in zip(b["rings"], b["boxes"].numpy(), strict=True):
        points = np.concatenate(rings)
        np.testing.assert_allclose([*points.min(0), *points.max(0)], boxes, atol=1e-3)


def test_ground_truth_is_coco() -> None:
    data = build_dataset(DataConfig(val_images_count=12), "val")
    truth = data.ground_truth()
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    assert sorted(coco.imgs) == list(range(1, 13)) and coco.getCatIds() == data.category_ids == list(range(1, 11))
    assert min(coco.anns) == 1
    for annotation in truth["annotations"]:
        mask = coco.annToMask(annotation)
        assert mask.shape == (192, 192) and mask.sum() == annotation["area"]
        x, y, w, h = annotation["bbox"]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert x - 1 <= columns[0] and columns[-1] <= x + w and y - 1 <= rows[0] and rows[-1] <= y + h
    target = data[-1, 4]["target"]
    assert target == {"image_id": 5, "size": (192, 192), "original_size": (192, 192)}


def test_targets_and_prepare() -> None:
    data = build_dataset(DataConfig(), "train")
    target = data[0, 0]["target"]
    count = len(target["labels"])
    assert target["boxes"].shape == (count, 4) and len(target["masks"]) == len(target["rings"]) == count
    assert (target["polygon_parts"] >= 1).all()
    prepared = build_dataset(DataConfig(), "train", prepare=lambda t, rng: {**t, "extra": rng.random()})[0, 0]["target"]
    assert "rings" not in prepared and 0 <= prepared["extra"] < 1


def test_smooth_contours_lose_the_corners() -> None:
    """The outline smoothed as a snake smooths it is visibly not enough: the shapes are made of corners."""
    overlaps = []
    for index in range(30):
        _, objects = draw(np.random.default_rng((6, index)), 192)
        masks = [np.pad(shape.mask, 8) for shape in objects if shape.mask.sum() > 400]
        for mask in masks:
            smooth = rings_to_masks(smoothed_contours([mask]).rings(), *mask.shape)[0]
            overlaps.append((smooth & mask).sum() / (smooth | mask).sum())
    assert len(overlaps) > 10 and np.mean(overlaps) < 0.94


def test_wrong_configs() -> None:
    with pytest.raises(InputError, match="shapes_size"):
        build_dataset(DataConfig(shapes_size=8), "val")
    with pytest.raises(InputError, match="train_images_count"):
        build_dataset(DataConfig(train_images_count=0), "train")
    with pytest.raises(InputError, match="split"):
        build_dataset(DataConfig(), "test")
