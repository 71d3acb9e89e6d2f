"""DANCE's targets: hand-worked shapes, and a plain-loop version of the matching on random outlines."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
import torch

from models.dance import DANCE
from models.dance.targets import build_targets, characteristic_points, edge_map, match
from models.snake.polygons import divide_edges, rectangles
from models.snake.targets import extreme_points, sample_boundary, signed_area
from tests.models.helpers import drawn, target_of, tiny_config
from tests.sharpcontour.helpers import packed_masks

V = 196


def resample_by_loops(polygon: np.ndarray, count: int) -> np.ndarray:
    """Closed polygon -> count points, every edge divided evenly, every vertex kept."""
    k = len(polygon)
    lengths = [float(np.hypot(*(polygon[(i + 1) % k] - polygon[i]))) for i in range(k)]
    n = [max(1, round(length * count / sum(lengths))) for length in lengths]
    excess = sum(n) - count
    longest = sorted(range(k), key=lambda i: -lengths[i])
    if excess < 0:
        n[longest[0]] -= excess
    for i in longest:
        if excess > 0:
            taken = min(excess, n[i] - 1)
            n[i], excess = n[i] - taken, excess - taken
    return np.array(
        [polygon[i] + j / n[i] * (polygon[(i + 1) % k] - polygon[i]) for i in range(k) for j in range(n[i])]
    )


def nearest(points: np.ndarray, place: np.ndarray) -> int:
    return int(((points - place) ** 2).sum(1).argmin())


def characteristic_by_loops(d: np.ndarray) -> tuple[np.ndarray, list[int]]:
    (left, top), (right, bottom) = d.min(0), d.max(0)
    height, width, n = bottom - top + 1, right - left + 1, len(d)
    points = []
    for axis, side, extent in ((1, top, height), (1, bottom, height), (0, left, width), (0, right, width)):
        band = {i for i in range(n) if abs(d[i, axis] - side) <= 0.02 * extent}
        while band:
            s = min(sorted(band), key=lambda i: abs(d[i, axis] - side))
            run = [s]
            for direction in (1, -1):
                i = (s + direction) % n
                while abs(d[i, axis] - d[s, axis]) <= 0.02 * extent and i not in run:
                    run.append(i)
                    i = (i + direction) % n
            other = d[run, 1 - axis]
            middle = (other.min() + other.max()) / 2
            points.append((middle, side) if axis == 1 else (side, middle))
            band -= set(run)
    d = np.roll(d, -nearest(d, np.array(points[0])), axis=0)
    index = [nearest(d, np.array(point)) for point in points]
    index[0] = 0
    return d, sorted(set(index))


def open_resample_by_loops(piece: np.ndarray, m: int) -> np.ndarray:
    if m == 1 or len(piece) == m + 1:
        return piece[:m]
    steps = np.hypot(*(piece[1:] - piece[:-1]).T)
    found = []
    for k in range(m):
        left, i = k * steps.sum() / m, 0
        while i < len(steps) - 1 and left > steps[i]:
            left, i = left - steps[i], i + 1
        found.append(piece[i] + left / steps[i] * (piece[i + 1] - piece[i]))
    return np.array(found)


def match_by_loops(polygon: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if signed_area(polygon) > 0:
        polygon = polygon[::-1]
    x0, y0, x1, y1 = box
    b = resample_by_loops(np.array([[x1, y0], [x0, y0], [x0, y1], [x1, y1]]), V)
    k = len(polygon)
    d = resample_by_loops(polygon, k * V * 5)
    d = np.roll(d, -nearest(d, b[0]), axis=0)[::k]
    d, idx = characteristic_by_loops(d)
    b = np.roll(b, -nearest(b, d[0]), axis=0)
    j = [nearest(b, d[i]) for i in idx]
    j[0] = 0
    if len(j) > 1 and j[-1] < j[1]:
        j[-1] = V - 2
    j, idx = [*sorted(j), V], [*idx, 5 * V]
    if idx[-2] == 5 * V - 1:
        idx[-2], idx[-1] = 5 * V - 3, 5 * V - 2
    pieces = []
    for i in range(len(j) - 1):
        m = j[i + 1] - j[i]
        if m == 0:
            continue
        if idx[i + 1] <= idx[i]:
            idx[i + 1] = idx[i] + 1
        last = i == len(j) - 2
        piece = np.concatenate([d[idx[i] :], d[:1]]) if last else d[idx[i] : idx[i + 1] + 1]
        pieces.append(open_resample_by_loops(piece, m))
    return b, np.concatenate(pieces)


def random_outline(rng: np.random.Generator, vertices: int) -> np.ndarray:
    angle = np.sort(rng.uniform(0, 2 * np.pi, vertices))
    radius = rng.uniform(10, 60, vertices)
    return np.stack([80 + radius * np.cos(angle), 70 + radius * np.sin(angle)], 1)


def box_of(polygon: np.ndarray) -> np.ndarray:
    return np.concatenate([polygon.min(0), polygon.max(0)])


def rectangle_of(polygon: np.ndarray) -> np.ndarray:
    return rectangles(torch.from_numpy(box_of(polygon))[None], V)[0].numpy()


def test_rectangle_runs_from_the_top_right_corner_over_the_top_left_one() -> None:
    contour = rectangles(torch.tensor([[10.0, 20.0, 40.0, 30.0]]), 8)[0]
    # 30, 10, 30, 10 px of 80 get 3, 1, 3, 1 of the 8 vertices
    assert contour.tolist() == [[40, 20], [30, 20], [20, 20], [10, 20], [10, 30], [20, 30], [30, 30], [40, 30]]
    assert signed_area(contour.numpy()) == -300


def test_edges_are_divided_by_length_and_the_longest_takes_the_rest() -> None:
    lengths = torch.tensor([[3.0, 1.0, 3.0, 1.0], [1.0, 0.0, 1.0, 0.0], [10.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    # rows: 3.75 1.25 3.75 1.25; a flat box; 7.69 .77 .77 .77; a box without extent
    counts = divide_edges(lengths, 10)
    assert counts.tolist() == [[4, 1, 4, 1], [3, 1, 5, 1], [7, 1, 1, 1], [7, 1, 1, 1]]


@pytest.mark.parametrize("seed", range(30))
def test_matching_equals_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    polygon = random_outline(rng, int(rng.integers(3, 30)))[:: rng.choice([1, -1])]
    found = match(polygon, rectangle_of(polygon))
    assert found is not None
    start, goal = match_by_loops(polygon, box_of(polygon))
    np.testing.assert_allclose(found[0], start, atol=1e-6)
    np.testing.assert_allclose(found[1], goal, atol=1e-4)


def test_boundary_samples_begin_next_to_the_given_place() -> None:
    square = np.array([[0.0, 0.0], [0.0, 10.0], [10.0, 10.0], [10.0, 0.0]])
    samples = sample_boundary(square, np.array([10.2, 4.9]), 40)
    np.testing.assert_allclose(samples[:3], [[10, 5], [10, 4], [10, 3]], atol=0.3)
    assert len(samples) == 40


def test_a_rectangle_matches_itself() -> None:
    polygon = np.array([[10.0, 20.0], [90.0, 20.0], [90.0, 60.0], [10.0, 60.0]])
    pair = match(polygon, rectangle_of(polygon))
    assert pair is not None
    assert np.abs(pair[0] - pair[1]).max() < 1.0  # within the spacing of the vertices, 240 / 196 px
    assert pair[0][0] == pytest.approx([50, 20], abs=1)  # both begin in the middle of the top side


def test_a_star_touches_its_box_in_pieces() -> None:
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2, 20.0, 50.0)
    star = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)[::-1]  # anti-clockwise as seen
    boundary, cuts = characteristic_points(sample_boundary(star, np.array([50.0, -50.0]), 5 * V))
    expected = np.array([[0, -50], [-47.6, -15.5], [-29.4, 40.5], [29.4, 40.5], [47.6, -15.5]])  # the five tips
    np.testing.assert_allclose(boundary[cuts], expected, atol=1.0)
    pair = match(star, rectangle_of(star))
    assert pair is not None
    start, goal = pair
    for tip in expected:
        at = nearest(start, tip)  # the rectangle's vertex next to a tip is paired with the tip
        assert np.hypot(*(goal[at] - tip)) < 2.0


def test_a_polygon_without_area_matches_nothing() -> None:
    assert (
        match(np.array([[0.0, 0.0], [10.0, 10.0], [5.0, 5.0]]), rectangle_of(np.array([[0.0, 0.0], [10, 10]]))) is None
    )


def test_extreme_points_average_within_two_percent() -> None:
    # top edge from x = 20 to 60 (flat), leftmost vertex at y = 40, bottom at x = 50, right side from y = 10 to 30
    polygon = np.array([[20.0, 10.0], [60.0, 10.0], [80.0, 10.5], [80.0, 30.0], [50.0, 90.0], [0.0, 40.0]])
    top, left, bottom, right = extreme_points(polygon, box_of(polygon))
    assert (top, left, bottom, right) == (50.0, 40.0, 50.0, 20.25)
    assert extreme_points(np.zeros((0, 2)), np.array([0.0, 0.0, 10.0, 4.0])) == (5, 2, 5, 2)


def test_edges_are_the_outermost_pixels_without_holes() -> None:
    mask = np.zeros((2, 8, 9), np.uint8)
    mask[0, 1:6, 2:8] = 1
    mask[0, 3, 4] = 0  # a hole
    mask[1, 6:, 0:2] = 1  # touches the border
    expected = np.zeros((8, 9), np.uint8)
    expected[1:6, 2:8] = 1
    expected[2:5, 3:7] = 0
    expected[6:, 0:2] = 1
    assert np.array_equal(edge_map(packed_masks(mask), 8, 9), expected)


def test_targets_of_an_image() -> None:
    target = drawn(0, 3)[1]
    target["polygon_parts"][1] = 2
    found = build_targets(target, np.random.default_rng(0), V)
    assert found["snake_start"].shape == found["snake_goal"].shape == (2, V, 2)
    boxes = target["boxes"][[0, 2]]
    assert torch.equal(found["snake_sides"], boxes[:, 2:] - boxes[:, :2])
    for start, goal, box in zip(found["snake_start"], found["snake_goal"], boxes, strict=True):
        assert torch.allclose(start.amin(0), box[:2]) and torch.allclose(start.amax(0), box[2:])
        assert (goal.amin(0) >= box[:2] - 1e-4).all() and (goal.amax(0) <= box[2:] + 1e-4).all()
    assert found["extremes"].shape == (3, 4) and found["edges"].dtype == torch.uint8
    assert found["image_id"] == 1


def test_targets_without_objects_have_their_shapes() -> None:
    found = build_targets(target_of(np.zeros((0, 96, 128), np.uint8), 96, 128), np.random.default_rng(0), V)
    assert found["snake_start"].shape == found["snake_goal"].shape == (0, V, 2)
    assert found["snake_sides"].shape == (0, 2) and found["extremes"].shape == (0, 4)
    assert found["edges"].shape == (96, 128) and not found["edges"].any()


def test_goals_stay_inside_the_image_and_thin_or_empty_objects_are_left_out() -> None:
    square = np.array([[-5.0, -5.0], [30.0, -5.0], [30.0, 30.0], [-5.0, 30.0]], np.float32)
    thin = np.array([[1.0, 1.0], [30.0, 1.0], [30.0, 1.5], [1.0, 1.5]], np.float32)
    target = target_of(np.zeros((0, 20, 24), np.uint8), 20, 24)
    target.update(
        rings=[[square], [thin], []],
        boxes=torch.tensor([[0.0, 0.0, 24.0, 20.0], [1.0, 1.0, 30.0, 1.5], [1.0, 1.0, 5.0, 5.0]]),
        polygon_parts=torch.ones(3, dtype=torch.int64),
    )
    found = build_targets(target, np.random.default_rng(0), V)
    assert len(found["snake_goal"]) == 1 and len(found["extremes"]) == 3
    goal = found["snake_goal"][0]
    assert goal.amin() == 0 and goal[:, 0].amax() == 23 and goal[:, 1].amax() == 19


def test_the_target_builder_travels_to_a_worker() -> None:
    builder = DANCE(tiny_config(), 2).target_builder
    target = drawn(0, 2)[1]
    found = pickle.loads(pickle.dumps(builder))(target, np.random.default_rng(0))
    assert found["snake_start"].shape == (2, V, 2)


def test_targets_cost_little() -> None:
    target = drawn(0, 4, 480, 640)[1]
    build_targets(target, np.random.default_rng(0), V)
    began = time.process_time()
    for _ in range(5):
        build_targets(target, np.random.default_rng(0), V)
    per_object = (time.process_time() - began) / 20
    assert per_object < 0.01  # s of the processor; about 1 ms
