"""Masks to rings and back: exact, with every component and every hole (coordinates: pixel j covers [j, j + 1))."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from sharpcontour.config import TracingConfig
from sharpcontour.contours.carry import carried_back, carry
from sharpcontour.contours.nesting import holes
from sharpcontour.contours.rasterize import rings_to_masks, rings_to_rles, union_of_parts
from sharpcontour.contours.tracing import (
    contours_from_masks,
    contours_from_rings,
    resample_rings,
    trace_mask,
    trace_masks,
)
from sharpcontour.masks.run_lengths import rles_to_masks
from tests.sharpcontour.helpers import EVALGT, coco_masks


def random_masks(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    masks = []
    for i in range(count):
        height, width = rng.integers(1, 48, 2)
        noise = rng.random((height, width))
        masks.append((noise if i % 5 == 0 else cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.5, 4))) > 0.5)
    return masks


@pytest.mark.parametrize(
    "mask", [*random_masks(40), np.zeros((5, 4), bool), np.ones((1, 1), bool), np.ones((6, 9), bool)]
)
def test_round_trip_is_exact(mask: np.ndarray) -> None:
    assert (rings_to_masks([trace_mask(mask)], *mask.shape)[0] == mask).all()


@pytest.mark.skipif(not EVALGT.exists(), reason="the COCO annotations are not here")
def test_round_trip_of_coco_masks_is_exact() -> None:
    for mask in coco_masks(200, min_area=1):
        assert (rings_to_masks([trace_mask(mask)], *mask.shape)[0] == mask).all()


def test_components_and_holes_are_kept() -> None:
    mask = np.zeros((20, 30), bool)
    mask[2:10, 2:12] = True
    mask[4:7, 5:9] = False
    mask[14:18, 20:28] = True
    rings = trace_masks(mask[None])
    assert rings.hole.tolist().count(True) == 1 and len(rings.hole) == 3
    assert sorted(rings.areas()) == [12, 32, 80]


def test_pixel_edges_have_no_superfluous_vertices() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2:6, 3:8] = True
    (ring,) = trace_mask(mask)
    assert sorted(map(tuple, ring.tolist())) == [(3, 2), (3, 6), (8, 2), (8, 6)]


def test_soft_mask_is_cut_between_cells() -> None:
    # Values fall off linearly to the right: 1, 0.8, 0.4, 0 crosses 0.5 three quarters of the way from cell 1 to cell 2.
    soft = np.tile(np.array([0, 1, 0.8, 0.4, 0], np.float32), (5, 1))
    ring = np.concatenate(trace_masks(soft[None]).split())
    assert ring[:, 0].max() == pytest.approx(2.5 + 0.75)
    assert ring[:, 0].min() == pytest.approx(1.0)


def test_soft_contour_runs_around_the_inside_cells() -> None:
    soft = np.stack([cv2.GaussianBlur(m, (0, 0), 2) for m in np.random.default_rng(1).random((20, 28, 28))])
    soft = np.clip((soft - 0.5) * 6 + 0.5, 0, 1).astype(np.float32)
    traced = trace_masks(soft)
    objects: list[list[np.ndarray]] = [[] for _ in soft]
    for k, ring in zip(traced.mask, traced.split(), strict=True):
        objects[k].append(ring)
    assert (rings_to_masks(objects, 28, 28) == (soft > 0.5)).all()


def test_contours_are_placed_in_their_boxes() -> None:
    masks = np.ones((2, 28, 28), np.float32)
    boxes = torch.tensor([[10.0, 20.0, 66.0, 48.0], [0.0, 0.0, 28.0, 28.0]])
    contours = contours_from_masks(masks, boxes, 64, TracingConfig())
    # A mask that fills its frame ends half a cell before it: the frame beyond is zero.
    low, high = contours.vertices[0].amin(0), contours.vertices[0].amax(0)
    assert low.tolist() == [10.0, 20.0] and high.tolist() == [66.0, 48.0]
    assert contours.instance.tolist() == [0, 1]


def test_small_rings_are_carried_through() -> None:
    mask = np.zeros((1, 40, 40), bool)
    mask[0, 2:30, 2:30] = True
    mask[0, 35, 35] = True
    contours = contours_from_masks(mask, torch.tensor([[0.0, 0.0, 40.0, 40.0]]), 128, TracingConfig())
    assert contours.vertices.shape == (1, 128, 2) and len(contours.carried[0]) == 1
    assert rings_to_masks(contours.rings(), 40, 40)[0, 35, 35]


def test_no_vertex_is_carried_back_twice() -> None:
    square = np.array([[0, 0], [8, 0], [8, 8], [0, 8]], np.float32)
    start = np.array([[0, 0], [4, 0], [8, 0], [8, 4], [8, 8], [4, 8], [0, 8], [0, 4]], np.float32)
    end = start.copy()
    end[7, 0] -= 2
    found = carry(square, start, end, 0.1)
    assert found.tolist() == [[0, 0], [8, 0], [8, 8], [0, 8], [-2, 4]]


def test_displacements_are_carried_back_to_the_traced_outlines() -> None:
    mask = np.zeros((1, 28, 28), np.float32)
    mask[0, 4:24, 4:24], mask[0, 10:14, 10:14], mask[0, 1, 1] = 1, 0, 1
    boxes = torch.tensor([[0.0, 0, 112, 112]])
    contours = contours_from_masks(mask, boxes, 32, TracingConfig(min_area=20, carry_back=True))
    before, after = carried_back(contours, contours.vertices, 0.1)
    assert len(contours.outlines) == 2 and len(before[0]) == 3
    assert all(a is b for a, b in zip(before[0], after[0], strict=True))
    plain = contours_from_masks(mask, boxes, 32, TracingConfig(min_area=20))
    assert plain.outlines == [] and torch.equal(plain.vertices, contours.vertices)
    end = contours.vertices.clone()
    end[0, :8] += 3
    _, after = carried_back(contours, end, 0.1)
    assert [a is b for a, b in zip(before[0], after[0], strict=True)].count(False) == 1
    _, after = carried_back(contours, end, 5.0)  # 3 to the right and 3 down are less
    assert all(a is b for a, b in zip(before[0], after[0], strict=True))


def test_foreign_rings_get_their_holes_from_nesting() -> None:
    outer = np.array([[0, 0], [20, 0], [20, 20], [0, 20]], np.float32)
    contours = contours_from_rings([[outer, outer * 0.5 + 5], []], 32, TracingConfig(), "cpu")
    assert contours.hole.tolist() == [False, True] and contours.instance.tolist() == [0, 0]


def test_even_spacing_follows_arc_length() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], float)
    even = resample_rings(np.concatenate([square, square + 10]), np.array([0, 4, 8]), 8)
    assert even[0].tolist() == [[0, 0], [2, 0], [4, 0], [4, 2], [4, 4], [2, 4], [0, 4], [0, 2]]
    assert np.allclose(even[1], even[0] + 10)


def test_rings_combine_by_the_even_odd_rule() -> None:
    def square(a: float, b: float) -> np.ndarray:
        return np.array([[a, a], [b, a], [b, b], [a, b]], np.float32)

    objects = [[square(2, 10), square(4, 7)], [], [square(0, 12)], [square(0, 5), square(5, 12)], [square(3, 3)[:2]]]
    areas = rings_to_masks(objects, 12, 12).sum((1, 2))
    assert areas.tolist() == [64 - 9, 0, 144, 25 + 49, 0]
    assert rings_to_masks([], 12, 12).shape == (0, 12, 12) and rings_to_rles([], 12, 12) == []


def test_the_union_of_parts_that_have_grown_together() -> None:
    def square(x: float, y: float, side: float) -> np.ndarray:
        return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], np.float32)

    def masks(*rings: np.ndarray) -> np.ndarray:
        return rings_to_masks([[ring] for ring in rings], 40, 50)

    def union(rings: list[np.ndarray], hole: list[bool]) -> np.ndarray | None:
        rle = union_of_parts(rings, np.array(hole), 40, 50)
        return None if rle is None else rles_to_masks([rle], 40, 50)[0]

    a, b, inner, other = square(2, 2, 20.4), square(15.3, 5, 30), square(5, 5, 8), square(9, 9, 8)
    first, second, hole, crossing = masks(a, b, inner, other)
    assert np.array_equal(union([a, b], [False, False]), first | second)
    assert np.array_equal(union([b, inner, a], [False, True, False]), (first & ~hole) | second)
    assert np.array_equal(union([a, inner, other], [False, True, True]), first & ~hole & ~crossing)
    leaving = square(18, 18, 9)  # a hole that has left its outline opens it, and adds nothing outside
    assert np.array_equal(union([a, leaving], [False, True]), first & ~masks(leaving)[0])
    corner, beyond = square(40, 20, 30), square(20, 22, 40)  # both with the last pixel, and out of the image
    assert np.array_equal(union([corner, beyond], [False, False]), np.logical_or(*masks(corner, beyond)))
    apart = square(2, 25, 12)
    assert union([a, inner], [False, True]) is None and union([a, apart], [False, False]) is None
    assert union([a, b[:2]], [False, False]) is None and union([a], [False]) is None and union([], []) is None


def test_rings_that_are_not_finite_are_left_out() -> None:
    broken = np.array([[1, 1], [5, 1], [np.nan, 5], [2, 7]], np.float32)
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], np.float32)
    assert rings_to_masks([[broken], [broken, square]], 12, 12).sum((1, 2)).tolist() == [0, 16]


def test_holes_are_told_from_parts_even_where_they_meet_at_a_corner() -> None:
    for mask in random_masks(60):
        traced = trace_masks(mask[None])
        rings = traced.split()
        assert holes(rings).tolist() == traced.hole.tolist()
