"""AP of images drawn again: each draw against the usual evaluation of a data set that has the drawn images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eval.bootstrap import SEED, standard_error
from eval.checks import GroundTruth
from eval.metrics import evaluate_detections
from eval.results import format_errors
from tests.eval import helpers


def drawn_again(
    data: dict[str, Any], found: list[dict[str, Any]], counts: list[int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A data set and its detections with every image as often as ``counts`` says, under new ids."""
    images, annotations, detections = [], [], []
    for image, count in zip(sorted(data["images"], key=lambda one: one["id"]), counts, strict=True):
        for _ in range(count):
            key = len(images) + 1
            images.append({**image, "id": key})
            for one in data["annotations"]:
                if one["image_id"] == image["id"]:
                    annotations.append({**one, "image_id": key, "id": len(annotations) + 1})
            detections += [{**one, "image_id": key} for one in found if one["image_id"] == image["id"]]
    return {**data, "images": images, "annotations": annotations}, detections


def test_draws_equal_data_sets_with_the_drawn_images() -> None:
    rng = np.random.default_rng(4)
    data = helpers.synthetic(rng)
    found = helpers.make_detections(data, rng)
    for rank, one in enumerate(rng.permutation(len(found)).tolist()):
        found[one]["score"] = rank / len(found)  # among equal scores the order of copies would matter
    scores = evaluate_detections(GroundTruth(data), found, bootstrap=4)
    number = len(data["images"])
    draws = np.random.default_rng(SEED).multinomial(number, np.full(number, 1 / number), size=4)
    assert draws.max() > 1 and draws.min() == 0
    for k, counts in enumerate(draws.tolist()):
        again, again_found = drawn_again(data, found, counts)
        expected = evaluate_detections(GroundTruth(again), again_found)
        for metric in ("segm", "boundary"):
            assert scores[metric].replicates[k] == pytest.approx(expected[metric].summary["AP"], abs=0.0051)
    assert len(set(scores["segm"].replicates)) > 1
    assert evaluate_detections(GroundTruth(data), found)["segm"].replicates == []


def test_the_error_of_a_change_is_that_of_pairs() -> None:
    coarse = [50.0, 54.0, 46.0]
    text = format_errors({"coarse": {"segm": coarse}, "refined": {"segm": [value + 2 for value in coarse]}})
    assert "mask AP over images, 3 draws: coarse 4.00, refined 4.00, change 0.00" in text
    assert standard_error([1.0, 3.0]) == pytest.approx(2**0.5)
    assert format_errors({"results": {"segm": []}}) == ""


def test_nothing_to_draw_from() -> None:
    categories = [{"id": 1, "name": "a"}]
    empty = {"images": [], "annotations": [], "categories": categories}
    assert evaluate_detections(GroundTruth(empty), [], bootstrap=3)["segm"].replicates == []
    lone = {**empty, "images": [{"id": 1, "height": 9, "width": 9}]}
    assert evaluate_detections(GroundTruth(lone), [], bootstrap=3)["segm"].replicates == []


def test_a_draw_without_objects_has_no_ap() -> None:
    square = [[1.0, 1, 8, 1, 8, 8, 1, 8]]
    one = {"id": 1, "image_id": 1, "category_id": 1, "area": 49.0, "segmentation": square}
    data = {
        "images": [{"id": k, "height": 9, "width": 9} for k in range(1, 4)],
        "annotations": [one],
        "categories": [{"id": 1, "name": "a"}],
    }
    values = evaluate_detections(GroundTruth(data), [{**one, "score": 0.9}], bootstrap=30)["segm"].replicates
    assert 0 < len(values) < 30 and set(values) == {100.0}
