"""The scripts of docs/examples run as they are, on outputs of the shapes and types that the libraries give."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
from pycocotools import mask as coco_mask

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROUGH = cv2.imread(str(DOCS / "cup.png"), cv2.IMREAD_GRAYSCALE) > 0
H, W = ROUGH.shape
BOX = [*np.argwhere(ROUGH).min(0)[::-1], *(np.argwhere(ROUGH).max(0)[::-1] + 1)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs an example beside a photograph, with modules that stand for libraries that are not installed."""
    shutil.copy(DOCS / "coffee.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)

    def run(name: str, **libraries: dict[str, Any]) -> dict[str, Any]:
        for library, names in libraries.items():
            module = ModuleType(library)
            module.__dict__.update(names)
            monkeypatch.setitem(sys.modules, library, module)
        return runpy.run_path(str(DOCS / "examples" / name))

    return run


def is_sharper(mask: np.ndarray) -> bool:
    """Whether a mask is the cup still, and another than the rough one."""
    return mask.shape == (H, W) and 0.7 < (mask & ROUGH).sum() / (mask | ROUGH).sum() < 1


def saved() -> list[dict[str, Any]]:
    return json.loads(Path("sharp.json").read_text())


def test_torchvision(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    output = {
        "boxes": torch.tensor([BOX], dtype=torch.float32),
        "labels": torch.tensor([47]),
        "scores": torch.tensor([0.9]),
        "masks": torch.from_numpy(cv2.blur(ROUGH.astype(np.float32), (9, 9)))[None, None],
    }

    class Model(torch.nn.Module):
        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            assert images[0].shape == (3, H, W) and images[0].dtype == torch.float32 and images[0].max() <= 1
            return [output]

    monkeypatch.setattr(torchvision.models.detection, "maskrcnn_resnet50_fpn_v2", lambda weights: Model())
    run("torchvision_masks.py")
    [entry] = saved()
    assert entry["category_id"] == 47 and entry["score"] == pytest.approx(0.9)
    assert is_sharper(coco_mask.decode(entry["segmentation"]).astype(bool))


def test_sam(run: Any) -> None:
    x0, y0, x1, y1 = map(int, BOX)
    record = {"segmentation": ROUGH, "area": int(ROUGH.sum()), "bbox": [x0, y0, x1 - x0, y1 - y0]}
    record |= {
        "predicted_iou": 0.98,
        "point_coords": [[300.0, 200.0]],
        "stability_score": 0.97,
        "crop_box": [0, 0, W, H],
    }

    def generate(image: np.ndarray) -> list[dict[str, Any]]:
        assert image.shape == (H, W, 3) and image.dtype == np.uint8
        return [record]

    names = {
        "sam_model_registry": {"vit_b": lambda checkpoint: checkpoint},
        "SamAutomaticMaskGenerator": lambda model: SimpleNamespace(generate=generate),
    }
    run("sam_masks.py", segment_anything=names)
    [entry] = saved()
    assert entry["score"] == pytest.approx(0.98) and is_sharper(coco_mask.decode(entry["segmentation"]).astype(bool))


@pytest.mark.parametrize("empty", [False, True])
def test_ultralytics(run: Any, capsys: pytest.CaptureFixture[str], empty: bool) -> None:
    def call(source: str, retina_masks: bool) -> list[Any]:
        assert retina_masks
        boxes = SimpleNamespace(cls=torch.tensor([41.0]), conf=torch.tensor([0.8]), xyxy=torch.tensor([BOX]).float())
        masks = None if empty else SimpleNamespace(data=torch.from_numpy(ROUGH[None].astype(np.float32)))
        return [SimpleNamespace(orig_img=cv2.imread(source), names={41: "cup"}, boxes=boxes, masks=masks)]

    names = run("ultralytics_masks.py", ultralytics={"YOLO": lambda weights: call})
    shown = capsys.readouterr().out
    assert (shown == "") if empty else shown.startswith("cup [[[") and is_sharper(names["sharp"].masks()[0])


def test_rfdetr(run: Any) -> None:
    detections = SimpleNamespace(
        xyxy=np.array([BOX], np.float32), mask=ROUGH[None], confidence=np.array([0.7]), class_id=np.array([47])
    )
    model = SimpleNamespace(predict=lambda image, threshold: detections)
    boxes = {"mask_to_xyxy": lambda masks: np.zeros((len(masks), 4))}
    run("rfdetr_masks.py", rfdetr={"RFDETRSegPreview": lambda: model}, supervision=boxes)
    assert is_sharper(detections.mask[0]) and (detections.xyxy == np.zeros((1, 4))).all()
    assert (np.load("sharp.npz")["arr_0"] == detections.mask[0]).all()
