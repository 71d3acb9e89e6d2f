"""hubconf.py as torch.hub reads it, each time in a process of its own."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.models.helpers import TINY
from tests.sharpcontour.weights import write_weights

ROOT = Path(__file__).resolve().parents[1]
WHOLE = """
import sys, numpy, torch
root, weights = sys.argv[1:]
sys.path = [place for place in sys.path if place != root]  # PYTHONPATH may name it
refiner = torch.hub.load(root, "refiner", source="local", path=weights)
assert not {"models", "data", "torchvision"} & set(sys.modules)  # names that other repositories may use
image, mask = numpy.zeros((64, 80, 3), numpy.uint8), numpy.zeros((64, 80), bool)
mask[20:44, 30:60] = True
assert len(refiner.refine(image, [mask]).rings[0]) == 1
model = torch.hub.load(root, "deepsnake", source="local", num_classes=3)
assert root not in sys.path and model.class_names == ["1", "2", "3"]
assert type(model.model).__name__ == "RefinedModel" and not model.model.training
model.short_side = 64
sharp = model.refine(image, [mask])  # what is imported late is found as well
assert len(sharp) == 1 and model.predict(image).size == (64, 80)
"""
AFTER_ANOTHER = """
import sys, torch
root, other = sys.argv[1:]
sys.path.insert(0, other)
import models
refiner = torch.hub.load(root, "refiner", source="local")
try:
    torch.hub.load(root, "mask_rcnn", source="local")
except ImportError as error:
    print(error)
"""


def _run(code: str, *arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_entry_points_work_in_a_process_of_their_own(tmp_path: Path) -> None:
    _run(WHOLE, ROOT, write_weights(tmp_path / "w.pt"), cwd=tmp_path)


def test_what_torch_hub_lists() -> None:
    module = runpy.run_path(str(ROOT / "hubconf.py"))  # torch.hub.list itself reads no local folder
    entries = {name: value for name, value in module.items() if callable(value) and not name.startswith("_")}
    assert set(entries) == {*TINY, "refiner"}
    assert all("No weights are published" in entries[name].__doc__ for name in TINY)


def test_another_repository_with_models_is_named(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("")
    told = _run(AFTER_ANOTHER, ROOT, tmp_path, cwd=tmp_path)
    assert told.startswith(f"models is already imported from {tmp_path}") and "a process of their own" in told


def test_a_checkpoint_is_what_was_asked_for(tmp_path: Path) -> None:
    from models import build_model
    from sharpcontour import InputError, SharpContourConfig
    from sharpcontour.io.plain import to_dict

    host, refiner = TINY["dance"](), SharpContourConfig()
    data = {"name": "shapes", "test_short_side": 96, "test_max_side": 96}
    config = {"model": "dance", "refine": True, "host": to_dict(host), "sharpcontour": to_dict(refiner), "data": data}
    state = {"model": build_model(host, 2, refiner).state_dict(), "config": config, "step": 1}
    torch.save({**state, "categories": [{"id": k, "name": f"c{k}"} for k in (4, 7)]}, tmp_path / "c.pt")
    path = str(tmp_path / "c.pt")

    def load(name: str, **settings: object) -> object:
        return torch.hub.load(str(ROOT), name, source="local", checkpoint=path, **settings)

    model = load("dance")
    assert model.category_ids == [4, 7] and type(model.model).__name__ == "RefinedModel"
    alone = load("dance", refine=False, num_classes=2)
    assert type(alone.model).__name__ == "DANCE" and not alone.config["refine"]
    with pytest.raises(InputError, match=r"c\.pt: is a checkpoint of dance; load it by that name"):
        load("condinst")
    with pytest.raises(InputError, match=r"c\.pt: has 2 classes, not 80"):
        load("dance", num_classes=80)
    del state["model"]
    config["refine"] = False
    torch.save({**state, "model": build_model(host, 2).state_dict(), "categories": [{"id": 1, "name": "a"}] * 2}, path)
    with pytest.raises(InputError, match=r"c\.pt: has no refiner; give refine=False"):
        load("dance")
    with pytest.raises(InputError, match="num_classes is 0"):
        torch.hub.load(str(ROOT), "dance", source="local", num_classes=0)
