"""Mask R-CNN: equal to torchvision's own with the same weights, its parts by hand, training and edge cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.ops import box_iou

from models import MODELS, build_model
from models.mask_rcnn import MaskRCNN, MaskRCNNConfig, detectron2, original, torchvision, torchvision_v2
from models.mask_rcnn.mask_head import MaskHead, MaskHeadConfig
from models.two_stage.anchors import grid_anchors
from models.two_stage.box_coder import decode, encode
from models.two_stage.host import RoIs, roi_masks
from models.two_stage.matching import BACKGROUND, IGNORED, draw, match
from models.two_stage.roi import Pool, PoolConfig
from models.two_stage.rpn import RPN, RPNConfig
from sharpcontour import InputError, SharpContourConfig
from tests.models.helpers import drawn, pasted, prepared, target_of, tiny_mask_rcnn
from tests.sharpcontour.helpers import packed_masks

HEIGHT, WIDTH = 128, 192


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's weights by this project's names, the background behind the classes."""
    names = {
        "roi_heads.box_head.fc6": "box_head.fcs.0",
        "roi_heads.box_head.fc7": "box_head.fcs.1",
        "roi_heads.box_head.5": "box_head.fcs.0",
        "roi_heads.box_predictor.cls_score": "box_head.scores",
        "roi_heads.box_predictor.bbox_pred": "box_head.deltas",
        "roi_heads.mask_predictor.conv5_mask": "mask_head.deconv",
        "roi_heads.mask_predictor.mask_fcn_logits": "mask_head.logits",
        "roi_heads.box_head": "box_head.convs",
        "roi_heads.mask_head": "mask_head.convs",
        "rpn.head.cls_logits": "rpn.objectness",
        "rpn.head.bbox_pred": "rpn.deltas",
        "rpn.head.conv.0.0": "rpn.convs.0",
        "rpn.head.conv.1.0": "rpn.convs.1",
    }
    result = {}
    for key, value in state.items():
        old = next((name for name in names if key.startswith(name + ".")), None)
        new = key if old is None else names[old] + key.removeprefix(old)
        if new.startswith("box_head.scores"):
            value = value.roll(-1, 0)
        elif new.startswith("box_head.deltas"):
            value = value[4:]
        elif new.startswith("mask_head.logits"):
            value = value[1:]
        result[new] = value
    return result


def pair(
    build: Callable[..., Any], preset: Callable[[], MaskRCNNConfig], **options: Any
) -> tuple[nn.Module, MaskRCNN, list[Tensor]]:
    """torchvision's model and ours with the same random weights, spread so that scores differ, and two images."""
    torch.manual_seed(0)
    reference = build(weights=None, weights_backbone=None, num_classes=11, min_size=HEIGHT, max_size=WIDTH, **options)
    for name, parameter in reference.named_parameters():
        if name.startswith(("rpn", "roi_heads")) and parameter.dim() > 1:
            nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
    nn.init.normal_(reference.roi_heads.box_predictor.cls_score.weight, std=0.1)
    nn.init.normal_(reference.roi_heads.mask_predictor.mask_fcn_logits.weight, std=1.0)
    images = [(torch.rand(3, HEIGHT, WIDTH) * 255).byte(), drawn(4, 2, 100, WIDTH)[0]]
    images[1] = nn.functional.interpolate(images[1][None].float(), size=(HEIGHT, WIDTH - 24))[0].byte()
    with torch.no_grad():  # batch norm takes statistics that keep the activations in range
        for _ in range(3):
            reference.backbone(torch.stack([images[0] / 255 - 0.5] * 2))
    config = preset()
    config.backbone.weights, config.backbone.norm = "none", "bn"
    mine = MaskRCNN(config, 10)
    mine.load_state_dict(renamed(reference.state_dict()))
    return reference, mine, images


PAIRS = [
    (maskrcnn_resnet50_fpn, torchvision),
    pytest.param(maskrcnn_resnet50_fpn_v2, torchvision_v2, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("build", "preset"), PAIRS)
def test_detections_equal_torchvisions(build: Any, preset: Any) -> None:
    # Fewer proposals and detections than usual, which the heads of random weights take long for.
    options = {"rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 200, "box_detections_per_img": 60}
    reference, mine, images = pair(build, preset, **options)
    mine.config.rpn.pre_nms_test = mine.config.rpn.post_nms_test = 200
    mine.config.box_head.max_detections = 60
    reference.eval(), mine.eval()
    with torch.no_grad():
        wanted, found = reference([image / 255 for image in images]), mine(images)
    for theirs, ours, image in zip(wanted, found, images, strict=True):
        size = (int(image.shape[1]), int(image.shape[2]))
        assert len(ours) == len(theirs["scores"]) > 50
        torch.testing.assert_close(ours.boxes, theirs["boxes"], atol=1e-3, rtol=0)
        torch.testing.assert_close(ours.scores, theirs["scores"], atol=1e-5, rtol=0)
        assert torch.equal(ours.labels, theirs["labels"] - 1)
        soft = np.stack([pasted(ours.shapes, k, *size) for k in range(len(ours))])  # type: ignore[union-attr]
        assert np.abs(soft - theirs["masks"][:, 0].numpy()).max() < 1e-5
        assert (soft > 0.5).mean() > 0.01 and (ours.masks() == (soft > 0.5)).all()


@pytest.mark.parametrize(("build", "preset"), PAIRS)
def test_losses_equal_torchvisions(build: Any, preset: Any) -> None:
    # Samples so large that everything is taken: nothing is left to chance.
    options = {"rpn_batch_size_per_image": 10**6, "box_batch_size_per_image": 10**5, "box_positive_fraction": 1.0}
    options["rpn_pre_nms_top_n_train"] = 50
    reference, mine, images = pair(build, preset, **options)
    config = mine.config
    config.rpn.pre_nms_train = 50
    config.rpn.batch, config.box_head.batch, config.box_head.foreground_share = 10**6, 10**5, 1.0
    reference.train(), mine.train()
    for module in (*reference.modules(), *mine.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    targets = [drawn(6, 2, HEIGHT, WIDTH)[1], drawn(7, 3, HEIGHT, WIDTH - 24)[1]]
    theirs = [
        {
            "boxes": target["boxes"],
            "labels": target["labels"] + 1,
            "masks": target["masks"].dense(*target["size"]).byte(),
        }
        for target in targets
    ]
    wanted, found = reference([image / 255 for image in images], theirs), mine(images, targets)
    names = {
        "loss_rpn_cls": "loss_objectness",
        "loss_rpn_loc": "loss_rpn_box_reg",
        "loss_box_cls": "loss_classifier",
        "loss_box_loc": "loss_box_reg",
        "loss_mask": "loss_mask",
    }
    assert set(found) == set(names)
    for ours, name in names.items():
        torch.testing.assert_close(found[ours], wanted[name], atol=1e-5, rtol=1e-5)
    sum(found.values()).backward()  # type: ignore[union-attr]
    sum(wanted.values()).backward()
    for key in ("rpn.convs.0.weight", "box_head.fcs.0.weight", "mask_head.deconv.weight", "backbone.body.conv1.weight"):
        gradient = {name: p.grad for name, p in reference.named_parameters()}
        theirs_by_name = renamed({name: g for name, g in gradient.items() if g is not None})
        torch.testing.assert_close(dict(mine.named_parameters())[key].grad, theirs_by_name[key], rtol=1e-3, atol=1e-4)


def test_anchors_of_the_three_rules() -> None:
    def cell(rule: Any, level: int = 0) -> list[list[float]]:
        shapes, sizes = [(2, 2), (1, 1)], (32.0, 64.0)
        return grid_anchors(shapes, (4, 8), (8, 8), sizes, (0.5, 1.0, 2.0), rule, torch.device("cpu"))[level].tolist()

    root = 2**0.5
    wide = [-16 * root, -8 * root, 16 * root, 8 * root]
    assert np.allclose(cell("exact")[:2], [wide, [-16, -16, 16, 16]])
    assert np.allclose(cell("exact")[3], np.add(wide, [4, 0, 4, 0]))  # the next column
    assert np.allclose(cell("exact")[6], np.add(wide, [0, 4, 0, 4]))  # the next row
    assert cell("rounded")[:3] == [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    # Detectron's table, whose boxes end at the index of the last pixel.
    assert cell("legacy")[:3] == [[-22, -10, 26, 14], [-14, -14, 18, 18], [-10, -22, 14, 26]]


def test_the_stride_of_p6_is_what_the_padding_makes_it() -> None:
    levels = grid_anchors([(13, 21)], (64,), (800, 1344), (512.0,), (1.0,), "rounded", torch.device("cpu"))
    centres = (levels[0][:, :2] + levels[0][:, 2:]).view(13, 21, 2) / 2
    assert centres[1, 1].tolist() == [64.0, 61.0]


def test_the_box_coder_round_trips_and_is_bounded() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 20.0], [5.0, 5.0, 6.0, 9.0]])
    boxes = torch.tensor([[2.0, -3.0, 9.0, 30.0], [4.0, 4.0, 8.0, 8.0]])
    weights = (10.0, 10.0, 5.0, 5.0)
    torch.testing.assert_close(decode(encode(boxes, anchors, weights), anchors, weights), boxes)
    assert encode(boxes[:1], anchors[:1])[0, 0] == (5.5 - 5.0) / 10
    huge = decode(torch.tensor([[0.0, 0.0, 99.0, 0.0]]), anchors[:1])[0]
    torch.testing.assert_close(huge, torch.tensor([-307.5, 0.0, 317.5, 20.0]))


def test_matching() -> None:
    objects = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [90.0, 90.0, 99.0, 99.0]])
    boxes = torch.tensor([[0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 2.0, 2.0], [20.0, 0.0, 30.0, 2.0]])
    assert match(boxes, objects, 0.7, 0.3).tolist() == [0, IGNORED, BACKGROUND, BACKGROUND]
    # The second object's best box learns it; the third overlaps nothing and claims nothing.
    assert match(boxes, objects, 0.7, 0.3, 0.0).tolist() == [0, IGNORED, BACKGROUND, 1]
    assert match(boxes, objects[:0], 0.7, 0.3, 0.0).tolist() == [BACKGROUND] * 4


def test_samples_hold_the_share_and_are_random() -> None:
    matched = torch.cat([torch.arange(30), torch.full((200,), BACKGROUND), torch.full((50,), IGNORED)])
    seen = set()
    for _ in range(5):
        index, counts = draw(matched, 64, 0.25)
        chosen = index[counts]
        assert len(chosen) == 64 and len(set(chosen.tolist())) == 64
        assert (matched[chosen] >= 0).sum() == 16 and (matched[chosen] == IGNORED).sum() == 0
        seen.add(tuple(chosen.tolist()))
    assert len(seen) == 5
    index, counts = draw(matched[:230], 1000, 0.5)
    assert sorted(index[counts].tolist()) == list(range(230))
    index, counts = draw(matched[230:], 8, 0.5)
    assert counts.sum() == 0


def test_every_box_reads_its_level() -> None:
    pool = Pool(PoolConfig(), (4, 8, 16, 32))
    sides = torch.tensor([10.0, 111.0, 113.0, 225.0, 447.0, 449.0, 2000.0])
    boxes = torch.stack([torch.zeros(7), torch.zeros(7), sides, sides], 1)
    assert pool.levels(boxes).tolist() == [0, 0, 1, 2, 2, 3, 3]
    maps = [torch.full((2, 1, 64 >> k, 64 >> k), float(k)) for k in range(4)]
    maps = [m + torch.tensor([0.0, 10.0]).view(2, 1, 1, 1) for m in maps]
    pooled = pool(maps, boxes / 8, torch.tensor([0, 1, 0, 1, 0, 1, 0]), 7)
    levels = pool.levels(boxes / 8)
    assert (pooled.mean((1, 2, 3)).round() == levels + torch.tensor([0, 10, 0, 10, 0, 10, 0])).all()


def test_the_mask_head_makes_only_the_masks_asked_for() -> None:
    head = MaskHead(MaskHeadConfig(channels=8), 8, 5)
    nn.init.normal_(head.logits.weight)
    nn.init.normal_(head.logits.bias)  # type: ignore[arg-type]
    x, labels = torch.randn(4, 8, 14, 14), torch.tensor([3, 0, 4, 3])
    whole = head.logits(head.deconv(x).relu())
    torch.testing.assert_close(head(x, labels), whole[torch.arange(4), labels])


def test_mask_targets_are_the_covered_share() -> None:
    mask = np.zeros((1, 40, 40), np.uint8)
    mask[0, 10:20, 10:24] = 1
    box = torch.tensor([[10.0, 10.0, 38.0, 38.0]])
    targets = [{"masks": packed_masks(mask), "boxes": box}]
    rois = RoIs(box, torch.tensor([0]), torch.tensor([0]))
    hard, coarse = (found[0] for found in roi_masks(targets, [(40, 40)], rois, [28, 14]))
    assert hard.sum() == 10 * 14 and hard[:10, :14].all()
    assert coarse.sum() == 5 * 7 and coarse[:5, :7].all()
    soft = roi_masks(targets, [(40, 40)], rois, [28], soft=True)[0][0]
    assert soft[0, 0] == 1 and soft[9, 5] == 0.5  # shifted by half a cell, as torchvision's


@pytest.mark.parametrize("preset", [detectron2, original])
@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnext101_32x8d"])
def test_presets_have_the_published_sizes(preset: Any, name: str) -> None:
    config = preset(name)
    config.backbone.weights, config.backbone.norm = "none", "frozen_bn"
    with torch.device("meta"):
        model = MaskRCNN(config, 80)
    counts = {"resnet50": 44_343_216, "resnet101": 63_283_120, "resnext101_32x8d": 107_427_760}
    assert sum(p.numel() for p in model.parameters()) == counts[name]
    assert model.backbone.body.layer2[0].conv1.stride == ((2, 2) if name != "resnext101_32x8d" else (1, 1))


def test_masks_on_predictions_that_are_not_finite_end_no_training() -> None:
    config = tiny_mask_rcnn()
    config.box_head.masks_on_predictions = True
    model = MaskRCNN(config, 2)
    torch.nn.init.constant_(model.box_head.deltas.bias, torch.nan)
    losses, _ = model.losses(*prepared(model, 2))
    assert not torch.stack(list(losses.values())).isfinite().all()  # such a batch is skipped


def test_original_boxes_end_at_the_index_of_the_last_pixel() -> None:
    config = tiny_mask_rcnn()
    config.pool.end, config.mask_head.paste = -1.0, "integer"
    torch.manual_seed(0)
    model = MaskRCNN(config, 2).eval()
    with torch.no_grad():
        model.box_head.scores.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
        found, inputs = model.detect([drawn(0, 2)[0]])
    shapes: Any = found[0].shapes
    assert len(found[0]) and torch.equal(shapes.boxes[:, 2:], found[0].boxes[:, 2:] - 1)
    assert torch.equal(inputs.boxes.cpu(), found[0].boxes)


@pytest.mark.parametrize("refine", [False, True])
def test_no_objects_and_no_detections(refine: bool) -> None:
    torch.manual_seed(0)
    model = build_model(tiny_mask_rcnn(), 2, SharpContourConfig() if refine else None)
    host = model.host if refine else model
    image = drawn(0, 2)[0]
    empty = target_of(np.zeros((0, 96, 128), np.uint8), 96, 128)
    losses = model([image], [{**empty, "boundary": torch.zeros(0, 256, 4)}])
    total = sum(value for name, value in losses.items() if name.startswith("loss"))
    total.backward()
    assert torch.isfinite(total) and losses["loss_mask"] == 0 and losses["loss_rpn_loc"] == 0
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    host.box_head.config.score_threshold = 1.0
    found = model.eval()([image, image])
    assert [len(f) for f in found] == [0, 0] and found[0].masks().shape == (0, 96, 128)


def test_jittered_boxes_join_the_proposals() -> None:
    config = tiny_mask_rcnn()
    config.box_head.jittered, config.box_head.foreground_share, config.rpn.post_nms_train = 20, 1.0, 1
    model = MaskRCNN(config, 2)
    image, target = drawn(1, 2)
    _, inputs = model.losses([image], [target])
    assert len(inputs.boxes) >= 30 and inputs.target_index is not None
    iou = box_iou(inputs.boxes, target["boxes"])[torch.arange(len(inputs.boxes)), inputs.target_index]
    assert iou.min() >= 0.5 and iou.mean() < 0.95 and len(iou.unique()) > 20


def test_boxes_from_anywhere_are_described_as_detections_are() -> None:
    torch.manual_seed(0)
    model = MaskRCNN(tiny_mask_rcnn(), 2).eval()
    images = [drawn(0, 2)[0], drawn(1, 3, 80, 100)[0]]
    with torch.no_grad():
        model.box_head.scores.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
        found, inputs = model.detect(images)
        again = model.describe(model.encode(images), [f.boxes for f in found])
    assert len(inputs.boxes) > 5 and torch.equal(again.feats, inputs.feats)
    assert torch.equal(again.boxes, inputs.boxes) and torch.equal(again.image_index, inputs.image_index)


def test_it_is_in_the_dict() -> None:
    assert MODELS["mask_rcnn"] is MaskRCNN and MaskRCNN.config_type is MaskRCNNConfig


def test_every_object_finds_its_best_anchor_among_those_inside() -> None:
    """An object at the border, whose best anchors cross it: the original preset still learns it."""
    config = original("resnet50").rpn
    assert config.inside_only
    rpn = RPN(config, 8, [4, 8, 16, 32, 64])
    maps = [torch.zeros(1, 8, 256 // stride, 256 // stride) for stride in rpn.strides]
    torch.manual_seed(0)
    found = rpn([torch.randn_like(m) for m in maps], (256, 256))
    target = {"boxes": torch.tensor([[0.0, 60, 60, 200]])}
    assert rpn.losses(found, [target], [(256, 256)])["loss_rpn_loc"] > 0


def test_sizes_that_do_not_fit_the_levels_are_told() -> None:
    with pytest.raises(InputError, match=r"rpn.sizes must be 5 sizes, one for each level, not 2"):
        RPN(RPNConfig(sizes=(32.0, 64.0)), 8, [4, 8, 16, 32, 64])
