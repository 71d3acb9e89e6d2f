"""The refiner inside other programs: their arrays, their settings of torch, what they do with a result."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import sharpcontour
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from tests.models.helpers import disc

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
MASKS = disc(60, 45, 30, 90, 120)[None]


@pytest.fixture(scope="module")
def refiner() -> sharpcontour.MaskRefiner:
    return sharpcontour.load_refiner()


def test_a_memory_mapped_image_is_an_array(refiner: sharpcontour.MaskRefiner, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", IMAGE)
    mapped = refiner.refine(np.load(tmp_path / "image.npy", mmap_mode="r"), MASKS)
    assert (mapped.masks() == refiner.refine(IMAGE, MASKS).masks()).all()


def test_zoom_needs_no_stream_for_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    found = sharpcontour.load_refiner(zoom=True).refine(np.zeros((300, 300, 3), np.uint8), np.ones((1, 300, 300), bool))
    assert len(found) == 1


def test_training_mode_of_what_holds_it_changes_nothing(refiner: sharpcontour.MaskRefiner) -> None:
    before = refiner.refine(IMAGE, MASKS).masks()
    kept = {key: value.clone() for key, value in refiner.model.state_dict().items()}
    torch.nn.ModuleList([refiner.model]).train()
    assert (refiner.refine(IMAGE, MASKS).masks() == before).all()
    assert all(torch.equal(value, kept[key]) for key, value in refiner.model.state_dict().items())


def test_the_callers_autocast_changes_nothing(refiner: sharpcontour.MaskRefiner) -> None:
    before = refiner.refine(IMAGE, MASKS).rings[0]
    with torch.autocast("cpu", torch.bfloat16):
        after = refiner.refine(IMAGE, MASKS).rings[0]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "scores", [np.array([0.25, 0.5])[::-1], np.array([0.5, 0.25], ">f4"), torch.tensor([0.5, 0.25], requires_grad=True)]
)
def test_scores_of_any_layout(refiner: sharpcontour.MaskRefiner, scores: np.ndarray | torch.Tensor) -> None:
    found = refiner.refine(IMAGE, np.repeat(MASKS, 2, 0), scores=scores)
    assert found.scores.tolist() == [0.5, 0.25] and not found.scores.requires_grad


@pytest.mark.parametrize("labels", [[1e30], np.array([2**63 + 5], np.uint64), [1j], [0.5]])
def test_labels_that_are_no_whole_numbers(refiner: sharpcontour.MaskRefiner, labels: object) -> None:
    with pytest.raises(InputError, match="labels must be one whole number for each of the 1 masks"):
        refiner.refine(IMAGE, MASKS, labels=labels)


def test_masks_and_boxes_as_others_have_them(refiner: sharpcontour.MaskRefiner, tmp_path: Path) -> None:
    wanted = refiner.refine(IMAGE, MASKS).rings[0]

    def same(found: Detections) -> bool:
        return all(np.array_equal(a, b) for a, b in zip(found.rings[0], wanted, strict=True))

    rle = refiner.refine(IMAGE, MASKS).coarse.rles()[0]  # type: ignore[union-attr]
    assert same(refiner.refine(IMAGE, [{"segmentation": rle, "bbox": [1, 2, 3, 4], "area": 5}]))
    assert same(refiner.refine(IMAGE, [{"segmentation": MASKS[0], "predicted_iou": 0.9}]))
    row = torch.tensor([30.0, 15, 90, 75], requires_grad=True)
    for boxes in (row.detach()[None].bfloat16(), [row], row[None].double()):
        found = refiner.refine(IMAGE, MASKS, boxes)
        assert same(found) and found.boxes.tolist() == [[30, 15, 90, 75]] and not found.boxes.requires_grad
    assert same(refiner.refine(IMAGE, [{**rle, "segmentation": None}]))
    for odd in (torch.ones(1, 4, dtype=torch.bool), torch.ones(1, 4) * 2j, [[torch.ones(2), 1, 2, 3]]):
        with pytest.raises(InputError, match=r"boxes\[0\] is not x0, y0, x1, y1, four finite numbers"):
            refiner.refine(IMAGE, MASKS, odd)
    contours, _ = cv2.findContours(MASKS[0].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    with pytest.raises(InputError, match=r"masks\[0\]: contours of OpenCV, .*; give the mask that they were found in"):
        refiner.refine(IMAGE, [contours])
    with pytest.raises(InputError, match=r"masks\[0\]: contours of OpenCV"):
        refiner.refine(IMAGE, contours)


def test_a_path_of_another_kind(refiner: sharpcontour.MaskRefiner, tmp_path: Path) -> None:
    class Place:
        def __fspath__(self) -> str:
            return str(tmp_path / "image.png")

    class Bytes:
        def __fspath__(self) -> bytes:
            return os.fsencode(tmp_path / "image.png")

    cv2.imwrite(Place().__fspath__(), IMAGE[..., ::-1])
    assert np.array_equal(refiner.refine(Place(), MASKS).masks(), refiner.refine(IMAGE, MASKS).masks())
    with pytest.raises(InputError, match="no such image"):
        (tmp_path / "image.png").unlink()
        refiner.refine(Place(), MASKS)
    with pytest.raises(InputError, match="no such image"):
        refiner.refine(Bytes(), MASKS)


def test_a_result_shares_nothing_that_is_changed(refiner: sharpcontour.MaskRefiner) -> None:
    scores = np.array([0.5], np.float32)
    found = refiner.refine(IMAGE, MASKS, scores=scores)
    assert found.coarse is not None
    boxes = found.coarse.boxes.clone()
    found.scores *= 2
    found.boxes *= 2
    assert scores[0] == found.coarse.scores[0] == 0.5 and torch.equal(found.coarse.boxes, boxes)
    found.to_coco(1)[0]["segmentation"].clear()  # type: ignore[attr-defined]
    assert found.masks().any()
    assert found != refiner.refine(IMAGE, MASKS) and found in {found}


def test_categories_of_a_result(refiner: sharpcontour.MaskRefiner) -> None:
    found = refiner.refine(IMAGE, MASKS, labels=[1])

    def categories(ids: Sequence[int] | None) -> list[int]:
        return [one["category_id"] for one in found.to_coco(1, ids)]

    assert categories(refiner.category_ids) == categories(None) == [1] and categories([7, 9]) == [9]
    for label in (-1, 2):
        odd = Detections(found.boxes, found.scores, torch.tensor([label]), found.shapes, found.size)
        with pytest.raises(InputError, match=f"label {label} has no category"):
            odd.to_coco(1, [7, 9])


def test_ids_of_images_stay(refiner: sharpcontour.MaskRefiner) -> None:
    found = refiner.refine(IMAGE, MASKS)
    for image_id in (3, np.int64(3), "000123"):
        (entry,) = found.to_coco(image_id)  # type: ignore[arg-type]
        assert entry["image_id"] == image_id and json.dumps(entry)


def test_masks_warn_of_nothing(refiner: sharpcontour.MaskRefiner) -> None:
    found = refiner.refine(IMAGE, MASKS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found.coarse is not None and (found.coarse.masks() == MASKS).all()
