"""PointRend: its points and subdivision beside literal computations, its published size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.pointrend import PointRend, detectron2
from models.pointrend.heads import PointHead, PointHeadConfig
from models.pointrend.points import features_at, soft_labels, training_points, values_at
from models.two_stage.host import Encoded, RoIs
from tests.models.helpers import disc, prepared, tiny_pointrend
from tests.sharpcontour.helpers import packed_masks


def looked_up(image: Tensor, points: Tensor, width: float, height: float) -> Tensor:
    """Bilinear values (C, Q) of a map (C, h, w) that covers (width, height) pixels, zeros around it."""
    grid = 2 * points / torch.tensor([width, height]) - 1
    return F.grid_sample(image[None].float(), grid[None, None], align_corners=False)[0, :, 0]


def test_features_fade_out_at_the_border() -> None:
    maps = torch.randn(2, 3, 5, 7)
    points = torch.rand(4, 400, 2) * torch.tensor([48.0, 40.0]) - 10
    index = torch.tensor([1, 0, 1, 1])
    found = features_at(maps, 4, index, points)
    for k in range(4):
        torch.testing.assert_close(found[k], looked_up(maps[index[k]], points[k], 28, 20), atol=1e-5, rtol=0)
    assert (found == 0).any()


def test_labels_are_bilinear_values_of_the_masks() -> None:
    masks = np.stack([disc(10, 12, 9, 40, 50), disc(48, 38, 6, 40, 50)])
    points = torch.rand(3, 500, 2) * torch.tensor([56.0, 46.0]) - 3
    index = torch.tensor([1, 0, 1])
    found = soft_labels(packed_masks(masks), index, points)
    for k in range(3):
        wanted = looked_up(torch.from_numpy(masks)[None, index[k]], points[k], 50, 40)[0]
        torch.testing.assert_close(found[k], wanted, atol=1e-5, rtol=0)
    assert ((found > 0.01) & (found < 0.99)).any()


def test_most_points_lie_where_the_coarse_mask_changes_its_sign() -> None:
    logits = torch.full((1, 1, 7, 7), -4.0)
    logits[..., 4:] = 4.0  # 0 in the middle between the columns 3 and 4, which no cell says
    places = training_points(logits, 196, 3, 0.75)
    assert places.shape == (1, 196, 2) and places.min() >= 0 and places.max() < 1
    near = values_at(logits, places)[0, 0].abs()
    assert near[:147].max() <= 4.0 and (near[:147] < 3.9).sum() > 80 > (near[147:] < 3.9).sum()


def literal(head: PointHead, p2: Tensor, box: Tensor, coarse: Tensor, label: int) -> Tensor:
    """The published subdivision of one RoI: five steps from the coarse mask, all classes, as the paper words it."""
    mask = coarse[None]
    for _ in range(5):
        mask = F.interpolate(mask, scale_factor=2, mode="bilinear", align_corners=False)
        side = mask.shape[-1]
        cells = mask[0, label].abs().flatten().topk(min(784, side**2), largest=False).indices
        places = torch.stack([(cells % side + 0.5) / side, (cells // side + 0.5) / side], 1)
        points = box[:2] + places * (box[2:] - box[:2])
        feature = looked_up(p2, points, 4 * p2.shape[2], 4 * p2.shape[1])
        seen = looked_up(coarse, places, 1, 1)
        x = feature
        for layer in head.fcs:
            x = layer(torch.cat([x, seen])[None])[0].relu()
        mask.flatten(2)[0, :, cells] = head.predictor(torch.cat([x, seen])[None])[0]
    return mask[0, label].sigmoid()


@torch.no_grad()
def test_subdivision_equals_the_published_one() -> None:
    torch.manual_seed(0)
    model = PointRend(tiny_pointrend(), 3).eval()
    model.point_head = PointHead(PointHeadConfig(channels=16), 32, 3)
    for layer in (model.point_head.predictor, model.coarse_head.predictor):
        nn.init.normal_(layer.weight, std=0.3)  # type: ignore[arg-type]
    encoded = Encoded({"p2": torch.randn(2, 32, 24, 32)}, [(96, 128), (90, 100)], (96, 128))
    boxes = torch.tensor([[4.0, 6.0, 90.0, 80.0], [60.0, 50.0, 128.0, 96.0], [10.0, 10.0, 14.0, 40.0]])
    rois, labels = RoIs(boxes, torch.tensor([0, 1, 1])), torch.tensor([2, 0, 1])
    features = model.mask_features(encoded, rois)
    found = model.probabilities(encoded, rois, features, labels)
    assert found.shape == (3, 224, 224)
    coarse = model.coarse_head(features)
    for k, image in enumerate(rois.image_index):
        wanted = literal(model.point_head, encoded.pyramid["p2"][image], boxes[k], coarse[k], int(labels[k]))
        close = (found[k] - wanted).abs() < 1e-4
        assert close.float().mean() > 0.999  # two cells equally uncertain may change places
    assert model.probabilities(encoded, RoIs(boxes[:0], labels[:0]), features[:0], labels[:0]).shape == (0, 28, 28)


def test_masks_are_learned_on_predicted_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = PointRend(tiny_pointrend(), 2)
    nn.init.constant_(model.box_head.deltas.bias, 0.5)
    seen: list[Tensor] = []
    pooled: list[Tensor] = []
    learn, pool = PointRend.mask_losses, PointRend.mask_features
    monkeypatch.setattr(
        PointRend, "mask_losses", lambda self, *args: (seen.append(args[1].boxes), learn(self, *args))[1]
    )
    monkeypatch.setattr(
        PointRend, "mask_features", lambda self, *args: (pooled.append(args[1].boxes), pool(self, *args))[1]
    )
    images, targets = prepared(model, 2)
    _, inputs = model.losses(images, targets)
    assert (seen[0][:, 2] > 128).any() and not seen[0].requires_grad  # not clipped
    assert torch.equal(pooled[0], seen[0]) and torch.equal(pooled[1], inputs.boxes)
    alone = model.training_instances(images, targets)
    assert torch.equal(pooled[2], alone.boxes)
    assert max(part.boxes[:, 2].max() for part in (inputs, alone)) <= 128
    assert torch.equal(inputs.target_index.bincount() > 0, torch.ones(2, dtype=torch.bool))  # type: ignore[union-attr]


@pytest.mark.parametrize(("classes", "count"), [(80, 60_161_792), (8, 56_096_456)])
def test_it_has_the_published_size(classes: int, count: int) -> None:
    config: Any = detectron2()
    config.backbone.weights = "none"
    with torch.device("meta"):
        model = PointRend(config, classes)
    assert sum(p.numel() for p in model.parameters()) == count
