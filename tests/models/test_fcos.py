"""FCOS: locations, assignment, losses and detections, against hand-worked cases and plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import box_iou

from models.boxes import jitter_boxes, paired_iou
from models.fcos.detector import FCOS, FCOSConfig, Predictions, best_of_groups
from models.fcos.targets import Grid, assign, centerness, distances, giou, neighbourhoods
from sharpcontour.host import at_least_one_pixel

BOUNDS = (-1.0, 64.0, 128.0, 256.0, 512.0, 1e8)
STRIDES = (8, 16, 32, 64, 128)


def grid_of(height: int, width: int) -> Grid:
    shapes = [(-(-height // s), -(-width // s)) for s in STRIDES]
    return Grid.build(shapes, STRIDES, torch.device("cpu"))


def assign_by_loops(grid: Grid, boxes: torch.Tensor, centres: torch.Tensor, radius: float) -> torch.Tensor:
    """Section by section of the rule, one location and one object at a time."""
    found = []
    for (x, y), stride, level in zip(grid.points.tolist(), grid.stride.tolist(), grid.level.tolist(), strict=True):
        best, best_area = -1, math.inf
        for g, ((x0, y0, x1, y1), (cx, cy)) in enumerate(zip(boxes.tolist(), centres.tolist(), strict=True)):
            reach = radius * stride
            left, right = max(cx - reach, x0), min(cx + reach, x1)
            top, bottom = max(cy - reach, y0), min(cy + reach, y1)
            largest = max(x - x0, y - y0, x1 - x, y1 - y)
            low, high = BOUNDS[level], BOUNDS[level + 1]
            area = (x1 - x0) * (y1 - y0)
            if left < x < right and top < y < bottom and low <= largest <= high and area < best_area:
                best, best_area = g, area
        found.append(best)
    return torch.tensor(found)


def head_output(detector: FCOS, images: int, height: int, width: int, channels: int) -> Predictions:
    return detector([torch.randn(images, channels, *shape) for shape in grid_of(height, width).shapes])


def test_locations_are_cell_middles_row_by_row() -> None:
    grid = grid_of(16, 24)
    assert grid.points[:7].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8]]
    assert grid.stride[:7].tolist() == [8] * 6 + [16]
    assert grid.level.bincount().tolist() == [6, 2, 1, 1, 1]


def test_assignment_on_a_toy_grid() -> None:
    grid = grid_of(64, 64)
    boxes = torch.tensor([[0.0, 0.0, 60.0, 60.0], [24.0, 24.0, 40.0, 40.0]])
    index = assign(grid, boxes, (boxes[:, :2] + boxes[:, 2:]) / 2, 1.5, torch.tensor(BOUNDS))[:64].view(8, 8)
    # The small box covers the four locations at 28 and 36; around it the large one keeps what lies within
    # 12 px of its centre (30, 30), that is between 18 and 42: locations 20, 28, 36.
    expected = torch.full((8, 8), -1)
    expected[2:5, 2:5] = 0
    expected[3:5, 3:5] = 1
    assert torch.equal(index, expected)


@pytest.mark.parametrize("seed", range(5))
def test_assignment_equals_plain_loops(seed: int) -> None:
    torch.manual_seed(seed)
    grid = grid_of(320, 384)
    corner, side = torch.rand(12, 2) * 250, torch.rand(12, 2) ** 2 * 300 + 2
    boxes = torch.cat([corner, corner + side], 1)
    centres = corner + torch.rand(12, 2) * side  # any point may stand for the object
    assert torch.equal(
        assign(grid, boxes, centres, 1.5, torch.tensor(BOUNDS)), assign_by_loops(grid, boxes, centres, 1.5)
    )


def test_both_ends_of_a_size_range_count() -> None:
    grid = grid_of(128, 128)
    index = torch.nonzero((grid.points == torch.tensor([60.0, 60.0])).all(1) & (grid.level == 0))[0, 0]
    index2 = torch.nonzero((grid.points == torch.tensor([56.0, 56.0])).all(1) & (grid.level == 1))[0, 0]
    for location, x in ((index, 60.0), (index2, 56.0)):  # largest distance exactly 64
        box = torch.tensor([[x - 64, x - 60, x + 60, x + 60]])
        assert assign(grid, box, torch.tensor([[x, x]]), 1.5, torch.tensor(BOUNDS))[location] == 0


def test_no_objects_is_all_background() -> None:
    grid = grid_of(64, 64)
    assert (assign(grid, torch.zeros(0, 4), torch.zeros(0, 2), 1.5, torch.tensor(BOUNDS)) == -1).all()


def test_centerness_by_hand() -> None:
    sides = torch.tensor([[2.0, 3.0, 2.0, 3.0], [1.0, 2.0, 4.0, 8.0], [0.0, 1.0, 1.0, 1.0]])
    assert torch.allclose(centerness(sides), torch.tensor([1.0, math.sqrt(1 / 4 * 2 / 8), 0.0]))


def test_giou_by_hand() -> None:
    one, two = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([1.0, 2.0, 3.0, 2.0])
    assert giou(one, one) == pytest.approx(1.0)
    # overlap 2 x 2, areas 4 and 16, hull 16: (4 + 1) / (16 + 1) and no gap between hull and union
    assert giou(one, two) == pytest.approx(5 / 17)
    crossing = torch.tensor([0.5, 4.0, 0.5, 4.0])  # overlap 1 x 2, union 4 + 8 - 2, hull 2 x 8
    assert giou(one, crossing) == pytest.approx(3 / 11 - (16 - 10) / 16)


def test_published_size_and_initial_values() -> None:
    plain = FCOS(FCOSConfig(), 80, 256, STRIDES)
    extreme = FCOS(FCOSConfig(extreme_points=True), 80, 256, STRIDES)
    assert sum(p.numel() for p in plain.parameters()) == 4_920_666
    assert sum(p.numel() for p in extreme.parameters()) == 4_929_886
    assert torch.allclose(plain.head.cls_logits.bias, torch.tensor(-4.59512))
    assert plain.head.cls_tower[1].num_groups == 32


def test_boxes_and_extreme_points_keep_their_precision_under_autocast() -> None:
    detector = FCOS(FCOSConfig(num_convs=1, extreme_points=True), 3, 16, STRIDES)
    head = detector.head
    for layer, value in ((head.bbox_pred, 5.0123), (head.extrm_pred, 0.3456)):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.constant_(layer.bias, value)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = head_output(detector, 1, 96, 128, 16)
    assert (found.sides - 5.0123).abs().max() < 1e-5  # strides of up to 128 px: in bf16 2 px
    assert (found.extremes - math.tanh(0.3456)).abs().max() < 1e-5


def test_losses_equal_plain_loops() -> None:
    torch.manual_seed(0)
    detector = FCOS(FCOSConfig(num_convs=0, extreme_points=True), 3, 4, STRIDES)
    for parameter in detector.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    targets = [
        {
            "boxes": torch.tensor([[4.0, 6.0, 60.0, 50.0], [20.0, 20.0, 100.0, 90.0]]),
            "labels": torch.tensor([2, 0]),
            "extremes": torch.tensor([[30.0, 20.0, 40.0, 30.0], [50.0, 60.0, 55.0, 70.0]]),
        },
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "extremes": torch.zeros(0, 4)},
    ]
    with torch.no_grad():
        found = head_output(detector, 2, 96, 128, 4)
    matched = detector.assign(found.grid, targets, [(t["boxes"][:, :2] + t["boxes"][:, 2:]) / 2 for t in targets])
    losses = detector.losses(found, targets, matched)
    count = mass = focal = loc = ctr = ext = 0.0
    for image, location in [(b, i) for b in range(2) for i in range(len(found.grid.points))]:
        g = int(matched[image, location])
        for c, z in enumerate(found.classes[image, location].tolist()):
            p = 1 / (1 + math.exp(-z))
            y = g >= 0 and int(targets[0]["labels"][g]) == c
            focal += -0.25 * (1 - p) ** 2 * math.log(p) if y else -0.75 * p**2 * math.log(1 - p)
        if g < 0:
            continue
        point, box = found.grid.points[location], targets[0]["boxes"][g]
        sides = distances(point, box) / found.grid.stride[location]
        c = float(centerness(sides))
        z = float(found.centerness[image, location])
        count, mass = count + 1, mass + c
        loc += c * (1 - float(giou(found.sides[image, location], sides)))
        ctr += c * math.log1p(math.exp(-z)) + (1 - c) * math.log1p(math.exp(z))
        x, y = point.tolist()
        w, h = (box[2:] - box[:2]).tolist()
        e = targets[0]["extremes"][g]
        wanted = torch.tensor([(e[0] - x) / w, (e[1] - y) / h, (e[2] - x) / w, (e[3] - y) / h])
        ext += c * float(F.smooth_l1_loss(found.extremes[image, location], wanted, reduction="sum"))
    assert count > 5
    expected = {
        "loss_fcos_cls": focal / count,
        "loss_fcos_loc": loc / mass,
        "loss_fcos_ctr": ctr / count,
        "loss_ext_pts": ext / mass,
    }
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(expected, rel=1e-4)


def test_neighbourhoods_equal_unfold_on_every_level() -> None:
    torch.manual_seed(0)
    grid = Grid.build([(4, 6), (2, 3), (1, 2)], (8, 16, 32), torch.device("cpu"))
    maps = [torch.randn(2, 5, *shape) for shape in grid.shapes]
    everywhere = torch.cat([F.unfold(m, 3, padding=1) for m in maps], 2).view(2, 5, 3, 3, -1)
    image = torch.arange(2).repeat_interleave(len(grid.points))
    location = torch.arange(len(grid.points)).repeat(2)
    found = neighbourhoods(maps, grid, image, location)
    assert torch.equal(found, everywhere[image, ..., location])
    assert neighbourhoods(maps, grid, image[:0], location[:0]).shape == (0, 5, 3, 3)


def test_best_of_groups() -> None:
    scores = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.3, 0.8])
    group = torch.tensor([1, 0, 1, 1, 0, 0])
    assert best_of_groups(scores, group, 2).tolist() == [1, 5, 3, 2]


def test_detections_are_suppressed_within_their_class_and_limited() -> None:
    torch.manual_seed(0)
    config = FCOSConfig(num_convs=0, max_detections=7, candidates=20)
    detector = FCOS(config, 2, 4, STRIDES)
    torch.nn.init.normal_(detector.head.cls_logits.weight, std=0.5)
    torch.nn.init.zeros_(detector.head.cls_logits.bias)
    torch.nn.init.constant_(detector.head.bbox_pred.bias, 1.5)
    sizes = [(90, 120), (96, 128)]
    found = detector.detect(head_output(detector, 2, 96, 128, 4), sizes)
    assert found.counts == [7, 7]
    for image, (height, width) in enumerate(sizes):
        mine = found.image_index == image
        boxes, labels, scores = found.boxes[mine], found.labels[mine], found.scores[mine]
        assert (scores.diff() <= 0).all()
        overlap = box_iou(boxes, boxes) * (labels[:, None] == labels) * (1 - torch.eye(len(boxes)))
        assert overlap.max() <= config.nms_threshold
        clipped = found.clipped[mine]
        assert (clipped >= 0).all() and (clipped[:, 2] <= width).all() and (clipped[:, 3] <= height).all()
        assert (clipped[:, 2:] > clipped[:, :2]).all()


def test_a_box_without_extent_or_beyond_the_image_is_dropped() -> None:
    detector = FCOS(FCOSConfig(num_convs=0, nms_threshold=1.0), 1, 4, STRIDES)
    found = head_output(detector, 1, 64, 64, 4)
    found.classes.fill_(-9.0)
    found.classes[0, [0, 1, 2, 63]] = 3.0  # location 63 is at (60, 60)
    found.sides[0, 0] = torch.tensor([1.0, 0.0, 1.0, 0.0])  # no height
    found.sides[0, 1] = 0.0
    found.sides[0, [2, 63]] = 0.5
    result = detector.detect(found, [(50, 50)])
    assert result.location.tolist() == [2]


def test_score_is_the_root_of_probability_times_centerness() -> None:
    detector = FCOS(FCOSConfig(num_convs=0), 1, 4, STRIDES)
    found = head_output(detector, 1, 64, 64, 4)
    found.classes.fill_(-9.0)
    found.classes[0, 10], found.centerness[0, 10], found.sides[0, 10] = 0.0, math.log(3), 1.0
    result = detector.detect(found, [(64, 64)])
    assert result.scores.tolist() == pytest.approx([math.sqrt(0.5 * 0.75)])


def test_positives_are_capped_and_their_boxes_sound() -> None:
    torch.manual_seed(0)
    detector = FCOS(FCOSConfig(num_convs=0, max_positives=5), 1, 4, STRIDES)
    boxes = torch.tensor([[10.0, 10.0, 60.0, 60.0], [40.0, 0.0, 128.0, 90.0]])
    targets = [{"boxes": boxes[:1]}, {"boxes": boxes[1:]}]
    found = head_output(detector, 2, 96, 128, 4)
    matched = detector.assign(found.grid, targets, [torch.tensor([[35.0, 35.0]]), torch.tensor([[84.0, 45.0]])])
    first = matched[0].nonzero()  # any location
    found.sides.zero_()  # predictions without extent: every box is a jittered object box
    positives = detector.positives(found, targets, matched, [(96, 128), (90, 120)])
    assert len(first) and len(positives.boxes) == 5
    assert torch.equal(matched[positives.image_index, positives.location], positives.target_index)
    assert torch.equal(positives.target_index, positives.image_index)  # one object an image here
    assert (paired_iou(positives.boxes, boxes[positives.target_index]) > 0.6).all()
    assert not positives.boxes.requires_grad
    exact = distances(found.grid.points, boxes[:1].expand(len(found.grid.points), 4)) / found.grid.stride[:, None]
    found.sides = exact.clamp(min=0).expand(2, -1, -1)
    again = detector.positives(found, targets, matched, [(96, 128), (90, 120)])
    mine = again.image_index == 0
    assert torch.allclose(again.boxes[mine], boxes[:1].expand(int(mine.sum()), 4))


def test_boxes_keep_one_pixel_inside_the_image() -> None:
    boxes = torch.tensor([[5.0, 5.0, 5.0, 5.0], [-9.0, -9.0, -2.0, 3.0], [99.0, 10.0, 120.0, 20.0]])
    limits = torch.tensor([[50.0, 40.0, 50.0, 40.0]]).expand(3, 4)
    found = at_least_one_pixel(boxes, limits)
    assert found.tolist() == [[5, 5, 6, 6], [0, 0, 1, 3], [49, 10, 50, 20]]


def test_jitter_moves_each_side_by_a_tenth_at_most() -> None:
    torch.manual_seed(0)
    box = torch.tensor([[10.0, 20.0, 110.0, 40.0]]).expand(1000, 4)
    move = (jitter_boxes(box, 0.1) - box).abs().amax(0)
    assert (move <= torch.tensor([10.0, 2.0, 10.0, 2.0]) + 1e-4).all() and (
        move > torch.tensor([9.0, 1.8, 9.0, 1.8])
    ).all()
