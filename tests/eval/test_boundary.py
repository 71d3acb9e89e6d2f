"""Boundary IoU and Boundary AP against the definition computed literally."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from eval import boundary
from eval.boundary import band_width, boundary_iou, boundary_ious, many_boundary_ious, mask_boundary
from eval.checks import GroundTruth
from eval.crops import BitBox, decode_boxes
from eval.metrics import evaluate_detections
from sharpcontour.errors import InputError
from sharpcontour.masks.run_lengths import RLE, run_lengths
from sharpcontour.masks.segmentation import find_broken
from tests.eval import helpers


def masks(count: int = 60) -> list[np.ndarray]:
    """Blobs on images of many sizes, and the awkward ones: empty, full, one pixel, whole columns and rows."""
    rng = np.random.default_rng(0)
    sizes = [(375, 500), (45, 60), (15, 20), (1, 1), (1, 40), (64, 2), (120, 333)]
    made = [helpers.blob(rng, *sizes[i % len(sizes)], 40) for i in range(count)]
    for height, width in sizes:
        for rows, columns in ((slice(0), slice(0)), (slice(None), slice(None)), (slice(1), slice(1))):
            mask = np.zeros((height, width), np.uint8)
            mask[rows, columns] = 1
            made.append(mask)
        bars = np.zeros((height, width), np.uint8)
        bars[:, width // 3 : 2 * width // 3 + 1] = 1  # runs that go on from one column to the next
        bars[height // 2, :] = 1
        made += [bars, 1 - bars]
    return made


@pytest.mark.parametrize(
    ("height", "width", "ratio", "d"),
    [
        (480, 640, 0.02, 16),
        (427, 640, 0.02, 15),
        (375, 500, 0.02, 12),  # 12.5 rounds to even
        (500, 375, 0.02, 12),
        (333, 500, 0.02, 12),
        (640, 640, 0.02, 18),
        (1024, 2048, 0.005, 11),
        (45, 60, 0.02, 2),
        (105, 140, 0.02, 4),
        (15, 20, 0.02, 1),
        (1, 1, 0.02, 1),
    ],
)
def test_band_width(height: int, width: int, ratio: float, d: int) -> None:
    assert band_width(height, width, ratio) == d


def test_boundary_is_the_literal_one() -> None:
    for mask in masks():
        for ratio in (0.02, 0.005, 0.1):
            boundary = mask_boundary(mask, ratio)
            assert boundary.dtype == bool
            np.testing.assert_array_equal(boundary, helpers.literal_boundary(mask, ratio).astype(bool))
            np.testing.assert_array_equal(mask_boundary(mask.astype(bool), ratio), boundary)


def test_boundary_of_a_square_by_hand() -> None:
    mask = np.zeros((375, 500), bool)
    mask[100:160, 200:260] = True
    assert mask_boundary(mask).sum() == 60**2 - (60 - 24) ** 2
    assert mask_boundary(np.zeros((0, 5))).shape == (0, 5)
    mask[:] = True  # the image border is a boundary too
    assert mask_boundary(mask).sum() == 375 * 500 - (375 - 24) * (500 - 24)


def test_boundary_iou_by_hand() -> None:
    a = np.zeros((30, 40), bool)  # diagonal 50, d = 1
    a[5:15, 5:15] = True
    b = np.roll(a, 5, axis=1)
    assert boundary_iou(a, a) == 1.0
    assert boundary_iou(a, np.zeros_like(a)) == 0.0
    assert boundary_iou(np.zeros_like(a), np.zeros_like(a)) == 0.0
    # Rings of 36 pixels; they share five pixels of the upper and of the lower side.
    assert boundary_iou(a, b) == pytest.approx(10 / 62, abs=1e-15)
    assert boundary_iou(a, b, dilation_ratio=0.5) == pytest.approx(50 / 150, abs=1e-15)  # band wider than the object


def test_boundary_arguments_are_checked() -> None:
    with pytest.raises(InputError, match="same shape"):
        boundary_iou(np.zeros((3, 4)), np.zeros((4, 3)))
    with pytest.raises(InputError, match=r"\(height, width\)"):
        mask_boundary(np.zeros((2, 3, 4)))
    for ratio in (0.0, -0.02, float("nan"), float("inf")):
        with pytest.raises(InputError, match="dilation ratio"):
            mask_boundary(np.zeros((3, 4)), ratio)


def unpacked(box: BitBox, bits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A mask of the whole image from its bits, and nothing beyond the image."""
    pixels = np.unpackbits(bits, axis=1).T
    full = np.zeros((mask.shape[0] + 16, mask.shape[1]), np.uint8)
    full[box.y0 : box.y0 + pixels.shape[0], box.x0 : box.x0 + pixels.shape[1]] = pixels
    assert not full[mask.shape[0] :].any()
    return full[: mask.shape[0]]


@pytest.mark.parametrize("depth", [1, 3, 40])
def test_boxes_hold_exactly_the_masks(depth: int) -> None:
    made = masks()
    rles = [coco_mask.encode(np.asfortranarray(mask)) for mask in made]
    runs, offsets = run_lengths([rle["counts"] for rle in rles])
    for k, (mask, box) in enumerate(zip(made, decode_boxes(rles, depth), strict=True)):
        values = np.concatenate([[0], mask.T.ravel().astype(int)])
        changes = np.flatnonzero(np.diff(values))
        np.testing.assert_array_equal(runs[offsets[k] : offsets[k + 1]], np.diff(changes, prepend=0, append=mask.size))
        np.testing.assert_array_equal(unpacked(box, box.inside, mask), mask)
        column = np.ones((2 * depth + 1, 1), np.uint8)
        eroded = cv2.erode(mask, column, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        np.testing.assert_array_equal(unpacked(box, box.eroded, mask), eroded)
        assert box.y0 % 8 == 0 and box.inside.shape == box.eroded.shape
        if mask.any():
            assert box.inside.any(0)[[0, -1]].all() and box.inside.any(1)[[0, -1]].all()
        else:
            assert box.inside.size == 0
    assert find_broken(rles) == [] and decode_boxes([], depth) == []


def test_runs_with_nothing_between_them_are_one() -> None:
    """Two full columns of an image of 10 rows, the second one cut in two by an empty run, or as a single run."""
    split = {"size": [10, 10], "counts": [30, 10, 0, 3, 0, 7, 50]}
    whole = {"size": [10, 10], "counts": [30, 20, 50]}
    rles = [coco_mask.frPyObjects(rle, 10, 10) for rle in (split, whole)]
    assert rles[0] != rles[1]
    for box in decode_boxes(rles, 2):
        assert (box.x0, box.y0) == (3, 0)
        assert np.unpackbits(box.inside, axis=1).sum() == 20 and np.unpackbits(box.eroded, axis=1).sum() == 2 * 6
    assert boundary_ious(rles[:1], rles[1:], 1) == 1


def test_large_images_are_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rles = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks(8) if mask.any()]
    pairs, widths = (rles, rles[::-1]), np.array([2, 3] * len(rles))[: len(rles)]
    expected, counts = many_boundary_ious(*pairs, widths, 1), []

    def counted(first: list[RLE], second: list[RLE], d: int) -> np.ndarray:
        counts.append(len(first))
        return boundary_ious(first, second, d)

    monkeypatch.setattr(boundary, "boundary_ious", counted)
    monkeypatch.setattr(boundary, "_PIXELS_AT_ONCE", 1)
    np.testing.assert_array_equal(many_boundary_ious(*pairs, widths, 1), expected)
    assert counts == [1] * len(rles)


@pytest.mark.parametrize("ratio", [0.005, 0.02, 0.1, 0.6])
def test_pairs_equal_full_images(ratio: float) -> None:
    rng, compared = np.random.default_rng(1), 0
    for a in masks():
        b = helpers._disturbed(a, rng)
        if not (a & b).any():
            continue
        first, second = (coco_mask.encode(np.asfortranarray(mask)) for mask in (a, b))
        pairs = [first, second, first], [second, first, first]
        values = boundary_ious(*pairs, band_width(*a.shape, ratio))
        expected = boundary_iou(a, b, ratio)
        np.testing.assert_array_equal(values, [expected, expected, 1.0])
        compared += 1
    assert compared > 60


def assert_equal(ours: dict[str, float | None], theirs: dict[str, float | None]) -> None:
    assert list(ours) == helpers.NAMES
    for name in helpers.NAMES:
        a, b = ours[name], theirs[name]
        assert (a is None) == (b is None), name
        assert a is None or b is None or abs(a - b) < 1e-9, name


@pytest.mark.parametrize("seed", range(4))
def test_boundary_ap_is_the_literal_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = helpers.synthetic(rng)
    found = helpers.make_detections(data, rng)
    alone = evaluate_detections(GroundTruth(data), found, ["boundary"])["boundary"]
    shared = evaluate_detections(GroundTruth(data), found)
    literal, _ = helpers.reference(data, found, helpers.LiteralBoundaryEval)
    assert_equal(alone.summary, literal)
    assert shared["boundary"] == alone
    assert_equal(shared["segm"].summary, helpers.reference(data, found)[0])
    assert literal["AP"] != shared["segm"].summary["AP"]


def test_boundary_ap_keeps_an_ignore_field_and_mask_ap_does_not() -> None:
    rng = np.random.default_rng(7)
    data = helpers.synthetic(rng)
    for truth in data["annotations"][::3]:
        truth["ignore"] = 1
    found = helpers.make_detections(data, rng)
    scores = evaluate_detections(GroundTruth(data), found)
    assert_equal(scores["boundary"].summary, helpers.reference(data, found, helpers.LiteralBoundaryEval)[0])
    assert_equal(scores["segm"].summary, helpers.reference(data, found)[0])


def test_other_dilation_ratio() -> None:
    rng = np.random.default_rng(3)
    data = helpers.synthetic(rng, 8)
    found = helpers.make_detections(data, rng)
    truth = GroundTruth(data)
    narrow, default, wide = (
        evaluate_detections(truth, found, ["boundary"], ratio)["boundary"].summary["AP"] for ratio in (0.005, 0.02, 1.0)
    )
    assert narrow is not None and default is not None and narrow < default
    masks_only = evaluate_detections(truth, found, ["segm"])["segm"].summary["AP"]
    assert wide == masks_only  # the band covers every object


@pytest.mark.skipif(not helpers.REAL.exists(), reason="needs annotations of real photographs")
@pytest.mark.parametrize("images", [20, pytest.param(None, marks=pytest.mark.slow)])
def test_real_annotations(images: int | None) -> None:
    data = helpers.read_real(images)
    found = helpers.make_detections(data, np.random.default_rng(0))
    scores = evaluate_detections(GroundTruth(data), found)
    assert_equal(scores["segm"].summary, helpers.reference(data, found)[0])
    assert_equal(scores["boundary"].summary, helpers.reference(data, found, helpers.LiteralBoundaryEval)[0])


@pytest.mark.slow
@pytest.mark.skipif(not helpers.REAL.exists(), reason="needs annotations of real photographs")
def test_speed() -> None:
    from tests.eval.bench_boundary import bench

    runs = [bench() for _ in range(3)]  # the least of three: a busy machine slows one run, seldom all
    times = {name: min(run[name] for run in runs) for name in runs[0]}
    assert times["mask AP"] < 0.35 * times["plain pycocotools, mask AP"]
    assert times["both"] < times["plain pycocotools, mask AP"]
    assert times["Boundary AP"] < 0.5 * times["literal Boundary AP"]
