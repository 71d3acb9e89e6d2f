"""Models, refiners and a training give the same in float32 on a device that is not the CPU: no tensor stays behind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import sharpcontour
from engine.distributed import World
from eval.diagnostics.parity import compare_devices
from models.bpr import BPR, BPRConfig
from models.zoo import MODELS
from sharpcontour.masks.run_lengths import crop_to_rle
from tests.engine import toy
from tests.other_device import OTHER, other_device

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "mix",
    [
        lambda far, near: far + near,
        lambda far, near: near.add_(far.sum()),
        lambda far, near: near.sum().add_(far.sum()),
        lambda far, near: far.clamp(near.min(), near.max()),
        lambda far, near: torch._foreach_mul_([far], [near.sum()]),
        lambda far, near: torch.rand(3, device=far.device, generator=torch.Generator()),
        lambda far, near: near.copy_(near[far.argsort()]),
        lambda far, near: torch.stack([far.sum(), near.sum()]),
        lambda far, near: far.index_put_((near.argsort(),), near),
        lambda far, near: near + far.numpy(),
    ],
)
def test_the_device_refuses_to_be_mixed_with_the_cpu(mix: Any) -> None:
    with other_device() as device:
        far, near = torch.tensor([1.0, 2.0, 3.0], device=device), torch.tensor([5.0, 3.0, 4.0])
        with pytest.raises((RuntimeError, TypeError), match=r"of two devices|is not an array"):
            mix(far, near)


def test_what_a_gpu_takes_from_the_cpu_the_device_takes_too() -> None:
    with other_device() as device:
        far = torch.tensor([1.0, 2.0, 3.0], device=device)
        far[torch.tensor([0, 2])] = torch.tensor(7.0)
        assert (far * torch.tensor(2.0)).tolist() == [14.0, 4.0, 14.0] and far.device == OTHER
        assert torch.zeros(3).copy_(far).numpy().tolist() == [7.0, 2.0, 7.0]


@pytest.mark.parametrize(
    ("name", "refine"),
    [
        ("mask_rcnn", True),
        *(
            pytest.param(name, refine, marks=pytest.mark.slow)
            for name in sorted(MODELS)
            for refine in (False, True)
            if (name, refine) != ("mask_rcnn", True) and (refine or MODELS[name].finds)
        ),
    ],
)
def test_models_learn_and_find_the_same_there(name: str, refine: bool) -> None:
    with other_device() as device:
        assert torch.nn.Linear(1, 1).to(device).weight.device == OTHER  # models are moved like this
        assert set(compare_devices(name, refine, device).values()) == {0.0}


@pytest.mark.filterwarnings("ignore:.*frobenius_norm is deprecated")
@pytest.mark.parametrize("zoom", [False, True])
def test_the_packages_refiner_works_there(zoom: bool) -> None:
    photo, given = str(ROOT / "docs/coffee.jpg"), cv2.imread(str(ROOT / "docs/cup.png"), cv2.IMREAD_GRAYSCALE)
    assert given is not None
    mask = given > 127
    here = sharpcontour.load_refiner(zoom=zoom).refine(photo, [mask]).masks()[0]
    with other_device() as device:
        there = sharpcontour.load_refiner(device=str(device), zoom=zoom).refine(photo, [mask]).masks()[0]
    assert (here & there).sum() > 0.99 * (here | there).sum()  # the CPU may compute in bfloat16


def test_bpr_works_there() -> None:
    torch.manual_seed(0)
    model = BPR(BPRConfig(width=8, blocks=1, size=64)).eval()
    image = torch.randint(0, 255, (3, 200, 200), dtype=torch.uint8)
    mask = crop_to_rle(np.ones((80, 90), bool), 60, 50, 200, 200)
    here = model.refine(image, [mask])
    with other_device() as device:
        assert here == model.to(device).refine(image, [mask]) != [mask]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_training_is_the_same_there(tmp_path: Path, optimizer: str) -> None:
    settings = toy.config(optimizer=optimizer)
    here = toy.trainer(tmp_path / "here", settings)
    begun: Any = copy.deepcopy(here.model)
    here.fit()
    with other_device() as device:
        there = toy.trainer(tmp_path / "there", settings, World(device=device), model=begun.to(device))
        there.fit()
        weights = {key: value.cpu() for key, value in there.model.state_dict().items()}
    assert all(torch.equal(value, weights[key]) for key, value in here.model.state_dict().items())
