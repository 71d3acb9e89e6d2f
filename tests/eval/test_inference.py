"""Scoring a model on one process; on two: tests/engine/test_distributed.py."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from eval.checks import GroundTruth
from eval.inference import evaluate_model, merge_stats
from eval.metrics import evaluate_detections
from eval.results import format_summary
from sharpcontour.detections import Detections
from tests.eval import helpers

SIZE = 100  # pixels of the stored images; the model sees them at half the size
IMAGES = 7


def ring(key: int, shift: float) -> np.ndarray:
    """The object of an image, moved to the right by ``shift`` stored pixels."""
    x, y, side = 8.0 + 5 * key + shift, 10.0 + 4 * key, 20.0 + 4 * key
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], np.float32)


class Data:
    category_ids = (4, 6)

    def ground_truth(self) -> dict[str, Any]:
        annotations = []
        for key in range(IMAGES):
            mask = helpers.decode([ring(key, 0).ravel().tolist()], SIZE, SIZE)
            annotations.append(helpers.annotation(key + 1, 10 + key, self.category_ids[key % 2], mask))
        return {
            "images": [{"id": 10 + key, "height": SIZE, "width": SIZE} for key in range(IMAGES)],
            "categories": [{"id": key, "name": str(key)} for key in self.category_ids],
            "annotations": annotations,
        }

    def batches(self, keys: list[int], size: int = 2) -> list[Any]:
        """(images, targets); a picture's number is its first pixel."""
        batches = []
        for begin in range(0, len(keys), size):
            part = keys[begin : begin + size]
            images = [torch.full((3, SIZE // 2, SIZE // 2), key, dtype=torch.uint8) for key in part]
            fields = {"size": (SIZE // 2, SIZE // 2), "original_size": (SIZE, SIZE)}
            batches.append((images, [{"image_id": 10 + key, **fields} for key in part]))
        return batches


class Model(nn.Module):
    """Finds every object 3 pixels off, and exactly after refinement; nothing on picture 5."""

    def __init__(self, refine: bool) -> None:
        super().__init__()
        self.refine = refine
        self.calls = 0
        if refine:
            self.statistics = SimpleNamespace(start=self._start, finish=self._finish)

    def _start(self) -> None:
        self.calls = 0

    def _finish(self) -> dict[str, Any]:
        return {"contours": self.calls, "restored": 1, "flip_share": [float(self.calls), 0.5], "sharpness": 0.25}

    def forward(self, images: list[torch.Tensor]) -> list[Detections]:
        assert not self.training and not torch.is_grad_enabled()
        return [self._found(int(image[0, 0, 0])) for image in images]

    def _found(self, key: int) -> Detections:
        count = 0 if key == 5 else 1
        self.calls += count
        fields = torch.zeros(count, 4), torch.full((count,), 0.5 + key / 100), torch.full((count,), key % 2)
        coarse = Detections(*fields, [[ring(key, 3.0) / 2]] * count, (SIZE // 2, SIZE // 2))
        if not self.refine:
            return coarse
        return Detections(*fields, [[ring(key, 0.0) / 2]] * count, coarse.size, coarse)


def run(model: nn.Module, keys: list[int], **options: Any) -> dict[str, Any]:
    data = Data()
    return evaluate_model(model, data, data.batches(keys), torch.device("cpu"), progress=False, **options)


def test_refined_model(tmp_path: Path) -> None:
    model = Model(refine=True).train()
    result = run(model, list(range(IMAGES)), results_path=tmp_path / "r.json")
    assert model.training
    assert result["images"] == IMAGES and result["detections"] == IMAGES - 1
    # One category has an object that is not found.
    refined, coarse = result["refined"], result["coarse"]
    assert refined["segm"]["AR100"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert coarse["segm"]["AP"] < refined["segm"]["AP"] and coarse["boundary"]["AP"] < refined["boundary"]["AP"]
    assert set(result["per_category"]["refined"]["boundary"]) == {"4", "6"}
    assert result["stats"]["contours"] == IMAGES - 1 and result["stats"]["sharpness"] == 0.25
    assert set(result["seconds"]) == {"load", "forward", "encode", "match", "total"}
    json.dumps(result, allow_nan=False)
    found = json.loads((tmp_path / "r.json").read_text())
    assert [entry["image_id"] for entry in found] == [10, 11, 12, 13, 14, 16]
    scores = evaluate_detections(GroundTruth(Data().ground_truth()), found)
    assert {kind: values.summary for kind, values in scores.items()} == refined


def test_plain_model() -> None:
    plain, refined = run(Model(refine=False), list(range(IMAGES))), run(Model(refine=True), list(range(IMAGES)))
    assert "refined" not in plain and plain["stats"] == {}
    assert plain["coarse"] == refined["coarse"]


def test_metrics_can_be_chosen() -> None:
    result = run(Model(refine=True), [0, 1], metrics=["boundary"], dilation_ratio=1.0)
    assert set(result["refined"]) == {"boundary"}
    whole = run(Model(refine=True), list(range(IMAGES)), dilation_ratio=1.0)["coarse"]  # all of a mask is its boundary
    assert whole["boundary"]["AP"] == whole["segm"]["AP"] > 0


def test_images_that_come_twice_count_once(capsys: pytest.CaptureFixture[str]) -> None:
    once = run(Model(refine=True), list(range(IMAGES)))
    twice = run(Model(refine=True), [*range(IMAGES), 0, 0, 3])
    assert twice["refined"] == once["refined"] and twice["images"] == IMAGES
    assert capsys.readouterr().err == ""


def test_images_left_out_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(Model(refine=True), [0, 1])
    assert "5 of 7 images were not given to the model" in capsys.readouterr().err
    assert result["images"] == 2 and result["refined"]["segm"]["AR100"] < 50


def test_more_images_than_wait_for_the_encoder() -> None:
    keys = [k % IMAGES for k in range(60)]
    assert run(Model(refine=True), keys)["refined"] == run(Model(refine=True), list(range(IMAGES)))["refined"]


def test_a_model_may_know_more_classes_than_the_data_have() -> None:
    data, wider = Data(), Model(refine=True)
    found = wider._found

    def shifted(key: int) -> Detections:
        detections = found(key)
        detections.labels = detections.labels + 1
        return detections

    wider._found = shifted  # type: ignore[method-assign]
    device = torch.device("cpu")
    plain = run(Model(refine=True), list(range(IMAGES)))
    result = evaluate_model(wider, data, data.batches(list(range(IMAGES))), device, category_ids=(1, 4, 6, 9))
    assert result["refined"] == plain["refined"] and result["detections"] == plain["detections"]
    assert plain["others"] == result["others"] == 0 and "more detections" not in format_summary(result)
    result = evaluate_model(wider, data, data.batches(list(range(IMAGES))), device, category_ids=(1, 7, 8, 9))
    assert result["detections"] == 0 and result["others"] == plain["detections"] > 0
    assert f"\n{result['others']} more detections are of categories that the data set lacks" in format_summary(result)


def test_a_model_that_fails_is_not_hidden() -> None:
    class Broken(Model):
        def _found(self, key: int) -> Detections:
            found = super()._found(key)
            found.shapes = []  # no longer one for each score
            return found

    with pytest.raises(RuntimeError, match=r"^image 10: ") as told:
        run(Broken(refine=False), list(range(IMAGES)))
    assert isinstance(told.value.__cause__, ValueError)


def test_stats_of_several_processes() -> None:
    parts = [
        {"contours": 30, "restored": 2, "flip_share": [0.1, 0.2], "crossing": 0.0},
        {"contours": 10, "restored": 1, "flip_share": [0.5, 0.6], "crossing": 1.0},
        {"contours": 0, "restored": 0, "flip_share": [0.0, 0.0], "crossing": 0.0},
    ]
    merged = merge_stats(parts)
    assert merged["contours"] == 40 and merged["restored"] == 3
    assert merged["flip_share"] == pytest.approx([0.2, 0.3]) and merged["crossing"] == pytest.approx(0.25)
    assert merge_stats([parts[2]]) == parts[2]
    assert merge_stats([{}, {}]) == {}
