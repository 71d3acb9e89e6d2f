"""What every host must do, with one test for all of them."""

from __future__ import annotations

import gc
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from models import MODELS, build_model
from sharpcontour import SharpContourConfig
from sharpcontour.contours.rasterize import rings_to_rles
from tests.models.helpers import TINY, confident, drawn, free_port, prepared


def test_every_model_has_a_tiny_one() -> None:
    assert sorted(TINY) == sorted(name for name, model in MODELS.items() if model.finds)


@pytest.mark.parametrize("name", sorted(TINY))
def test_losses_reach_every_weight(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(TINY[name](), 2, SharpContourConfig())
    images, targets = prepared(model, 1, 2, 0)
    losses = model(images, targets)
    total = sum(value for key, value in losses.items() if key.startswith("loss"))
    total.backward()
    assert torch.isfinite(total) and losses["loss_ipc"] > 0
    missing = [key for key, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert missing == []


@pytest.mark.parametrize("name", sorted(TINY))
def test_refined_detections_are_those_of_the_host(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(confident(name), 2, SharpContourConfig()).eval()
    images = [drawn(0, 2)[0], drawn(1, 3, 80, 100)[0]]
    with torch.no_grad():
        alone, found = model.host(images), model.detect(images, trace=True)
    for before, after in zip(alone, found, strict=True):
        assert len(before) == len(after) > 0 and after.coarse is not None and after.steps is not None
        assert torch.equal(before.boxes, after.boxes) and torch.equal(before.scores, after.scores)
        assert after.coarse.rles() == before.rles() and len(after.steps) == 4
        assert after.masks().shape == (len(after), *after.size)
    for image, after in zip(images, found, strict=True):  # each has its own objects, as alone
        (own,) = model.detect([image])
        one, other = (np.concatenate([np.zeros((0, 2)), *chain(*some.rings)]) for some in (own, after))
        # Where rounding decides a step of a vertex, it ends elsewhere.
        assert one.shape == other.shape and (np.abs(one - other) > 0.01).sum() <= 0.05 * one.size


@pytest.mark.parametrize("name", sorted(TINY))
def test_half_precision_detects_too(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(confident(name), 2, SharpContourConfig()).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model([drawn(0, 2)[0]])[0]
    assert len(found) and found.boxes.dtype == torch.float32
    assert all(np.isfinite(ring).all() for rings in found.rings for ring in rings)


@pytest.mark.parametrize("name", sorted(TINY))
def test_training_alone_leaves_the_host_as_it_is(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(TINY[name](), 2, SharpContourConfig(train_host=False)).train()
    before = {key: value.clone() for key, value in model.host.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    losses = model(*prepared(model, 1, 2, 0))
    assert [key for key in losses if key.startswith("loss")] == ["loss_ipc"]
    losses["loss_ipc"].backward()
    optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in model.host.state_dict().items())


@pytest.mark.parametrize("name", sorted(TINY))
def test_images_without_objects(name: str) -> None:
    model = build_model(TINY[name](), 2, SharpContourConfig())
    losses = model(*prepared(model, 0, 0))
    total = sum(value for key, value in losses.items() if key.startswith("loss"))
    total.backward()
    assert torch.isfinite(total) and losses["loss_ipc"] == 0
    missing = [key for key, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert missing == []


def _train_with_nothing_on_one(rank: int, port: int, folder: Path) -> None:
    """Two steps of every model on two processes, the second of which has images without objects."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    weights = {}
    for name in sorted(TINY):
        torch.manual_seed(0)
        model = build_model(TINY[name](), 2, SharpContourConfig())
        batch = prepared(model, 0, 0) if rank else prepared(model, 2, 1)
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for _ in range(2):
            optimizer.zero_grad()
            sum(value for key, value in wrapped(*batch).items() if key.startswith("loss")).backward()
            optimizer.step()
        weights[name] = dict(model.named_parameters())
    torch.save(weights, folder / f"rank{rank}.pt")
    dist.destroy_process_group()
    del model, wrapped
    gc.collect()  # gloo's threads must not outlive the interpreter


@pytest.mark.slow
def test_no_process_waits_for_one_without_objects(tmp_path: Path) -> None:
    multiprocessing.spawn(_train_with_nothing_on_one, (free_port(), tmp_path), nprocs=2)
    one, other = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    for name in sorted(TINY):
        assert all(torch.equal(value, other[name][key]) for key, value in one[name].items()), name
        assert all(torch.isfinite(value).all() for value in one[name].values()), name


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TINY))
def test_two_images_are_learned_by_heart(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(TINY[name](24), 2)
    # CondInst learns every fourth pixel: on objects of 30 pixels perfect masks of its own have an IoU below 0.9.
    images, targets = prepared(model, 2, 3, scale=2 if name == "condinst" else 1)
    steps = 250 if name == "condinst" else 350
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    assert average_precision(model.eval()(images), targets) > 0.9


def average_precision(found: list[Any], targets: list[dict[str, Any]]) -> float:
    """COCO's mask AP, by the reference evaluator."""
    images = [{"id": i, "height": t["size"][0], "width": t["size"][1]} for i, t in enumerate(targets)]
    annotations = []
    for i, target in enumerate(targets):
        rles = rings_to_rles(target["rings"], *target["size"]) if "rings" in target else []
        for rle, label, box in zip(rles, target["labels"].tolist(), target["boxes"].tolist(), strict=True):
            area = (box[2] - box[0]) * (box[3] - box[1])
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": label, "segmentation": rle}
                | {"iscrowd": 0, "area": area, "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
            )
    truth = COCO()
    truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 0}, {"id": 1}]}
    truth.createIndex()
    results = [entry for i, detections in enumerate(found) for entry in detections.to_coco(i, [0, 1])]
    evaluation = COCOeval(truth, truth.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])
