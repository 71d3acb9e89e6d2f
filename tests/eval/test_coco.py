"""Mask AP against pycocotools, the edge cases, and what is refused."""

from __future__ import annotations

import copy
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eval.boundary
from eval.checks import GroundTruth
from eval.metrics import evaluate_detections
from sharpcontour.errors import InputError
from sharpcontour.io.files import read_json
from tests.eval import helpers


def square(height: int, width: int, y: int, x: int, side: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + side, x : x + side] = 1
    return mask


def small() -> dict[str, Any]:
    """Two images, one object of 40 x 40 and one of 100 x 100, a category without objects."""
    first, second = square(200, 300, 10, 20, 40), square(200, 300, 50, 60, 100)
    return {
        "images": [{"id": 1, "height": 200, "width": 300}, {"id": 2, "height": 200, "width": 300}],
        "categories": [{"id": 5, "name": "a"}, {"id": 8, "name": "b"}],
        "annotations": [helpers.annotation(3, 1, 5, first), helpers.annotation(9, 2, 5, second)],
    }


def score(data: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, float | None]:
    return evaluate_detections(GroundTruth(data), found, ["segm"])["segm"].summary


@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocotools(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(seed)
    data = helpers.synthetic(rng)
    found = helpers.make_detections(data, rng)
    before = copy.deepcopy((data, found))
    ours = evaluate_detections(GroundTruth(data), found)
    assert (data, found) == before
    assert capsys.readouterr() == ("", "")
    theirs, evaluator = helpers.reference(data, found)
    assert ours["segm"].summary == theirs
    precision = evaluator.eval["precision"][:, :, :, 0, 2]
    for k, name in enumerate(["c3", "c7", "c9"]):
        expected = precision[:, :, k].mean() * 100 if (precision[:, :, k] > -1).all() else None
        assert ours["segm"].per_category[name] == pytest.approx(expected)


def test_areas_are_those_of_the_masks() -> None:
    """A "bbox" in the results would make pycocotools use its area."""
    data = small()
    found = [helpers.detection(1, 5, square(200, 300, 110, 20, 31), 0.9)]  # small, unmatched: ignored for APm
    with_box = [{**found[0], "bbox": [0, 0, 299, 199]}]
    assert score(data, with_box) == score(data, found) == helpers.reference(data, found)[0]


def test_no_detections() -> None:
    summary = score(small(), [])
    assert summary == {name: None if name in ("APs", "ARs") else 0.0 for name in helpers.NAMES}
    scores = evaluate_detections(GroundTruth(small()), [])
    assert scores["boundary"].summary == summary
    assert scores["segm"].per_category == {"a": 0.0, "b": None}


def test_no_objects_no_images_no_categories() -> None:
    data = small()
    data["annotations"] = []
    found = [helpers.detection(1, 5, square(200, 300, 10, 20, 40), 0.9)]
    assert set(score(data, found).values()) == {None}
    assert set(score({"images": [], "categories": [], "annotations": []}, []).values()) == {None}


def test_perfect_and_undefined() -> None:
    data = small()
    found = [{**a, "score": 0.5} for a in data["annotations"]]
    for scores in evaluate_detections(GroundTruth(data), found).values():
        assert scores.summary["AP"] == pytest.approx(100)
        assert scores.summary["APs"] is None


def test_iou_exactly_at_a_threshold_counts() -> None:
    data = small()
    data["annotations"] = data["annotations"][:1]
    half = square(200, 300, 10, 20, 40)
    half[30:] = 0  # IoU 0.5
    summary = score(data, [helpers.detection(1, 5, half, 0.9)])
    assert summary["AP50"] == pytest.approx(100) and summary["AP75"] == 0
    assert summary["AR100"] == pytest.approx(10)


def test_an_annotation_with_id_0_can_be_found() -> None:
    data = small()
    data["annotations"][0]["id"] = 0
    assert score(data, [{**a, "score": 0.5} for a in data["annotations"]])["AP"] == pytest.approx(100)


def test_crowd_takes_any_number() -> None:
    data = small()
    crowd = helpers.annotation(11, 1, 5, square(200, 300, 0, 100, 150), iscrowd=1)
    data["annotations"].append(crowd)
    found = [{**a, "score": 0.5} for a in data["annotations"][:2]]
    found += [helpers.detection(1, 5, square(200, 300, 5 + 10 * i, 120, 20), 0.9) for i in range(8)]
    for scores in evaluate_detections(GroundTruth(data), found).values():
        assert scores.summary["AP"] == pytest.approx(100)


def test_masks_of_cvat_are_no_crowds() -> None:
    data = small()
    for one in data["annotations"]:
        one |= {"iscrowd": 1, "attributes": {"occluded": False}}
    count = len(data["annotations"])
    with pytest.warns(UserWarning, match=f"{count} x mask of CVAT, which writes iscrowd 1 for all masks"):
        truth = GroundTruth(data)
    found = [{**a, "score": 0.5} for a in data["annotations"]]
    assert evaluate_detections(truth, found)["segm"].summary["AP"] == pytest.approx(100)


def test_all_forms_of_segmentation_agree() -> None:
    data = small()
    expected = score(data, [{**a, "score": 0.5} for a in data["annotations"]])
    polygon = [20, 10, 60, 10, 60, 50, 20, 50]
    runs = [20 * 200 + 10] + [40, 160] * 39 + [40, 150 + 240 * 200]
    assert sum(runs) == 200 * 300
    for segmentation in ([polygon], {"size": [200, 300], "counts": runs}):
        other = copy.deepcopy(data)
        other["annotations"][0]["segmentation"] = segmentation
        found = [{**a, "score": 0.5} for a in other["annotations"]]
        assert score(other, found) == score(data, found) == expected


def test_polygons_as_tools_write_them_are_counted() -> None:
    data = small()
    polygon = [20, 10, 60, 10, 60, 50, 20, 50]
    points = [polygon[k : k + 2] for k in range(0, 8, 2)]
    data["annotations"][0]["segmentation"] = [polygon]
    found = [{**a, "score": 0.5} for a in data["annotations"]]
    expected = score(data, found)
    for segmentation in (polygon, points, [points]):
        other, others = copy.deepcopy(data), copy.deepcopy(found)
        other["annotations"][0]["segmentation"] = others[0]["segmentation"] = segmentation
        with pytest.warns(UserWarning, match=r"gt.json: 1 x polygon written as points .*, understood"):
            truth = GroundTruth(other, "gt.json")
        with pytest.warns(UserWarning, match=r"r.json: 1 x polygon written as points .*, understood"):
            scores = evaluate_detections(truth, others, name="r.json")
        assert scores["segm"].summary == expected


@pytest.mark.parametrize("write", [str, float])
def test_ids_as_tools_write_them_are_understood(write: Callable[[int], Any]) -> None:
    data = small()
    found = [{**a, "score": 0.5} for a in data["annotations"]]
    expected = score(data, found)
    for annotation in data["annotations"]:
        annotation |= {key: write(annotation[key]) for key in ("image_id", "category_id")}
        annotation["iscrowd"] = write(0)  # no crowd, though the text "0" is true to Python
    if write is str:
        with pytest.warns(UserWarning, match=r"ground truth: 2 x whole number written as text"):
            assert score(data, found) == expected
    else:  # 1.0 is the key 1
        assert score(data, found) == expected


BROKEN_ANNOTATIONS = [
    ({"segmentation": []}, "segmentation is empty"),
    ({"segmentation": [[1, 2, 3, 4]]}, "three or more"),
    ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "three or more"),
    ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "not finite, or no number"),
    ({"segmentation": [[1, 2, 3, 4, 5, "6"]]}, "not finite, or no number"),
    ({"segmentation": [[1, 2, 3, 4, 5, 1e12]]}, "vertex more than 10 image sizes away"),
    ({"segmentation": None}, "neither"),
    ({"segmentation": {"size": [200, 300]}}, "neither"),
    ({"segmentation": {"size": [300, 200], "counts": [60000]}}, "the mask is 200 x 300 pixels, the image 300 x 200"),
    ({"segmentation": {"size": 5, "counts": [60000]}}, "an RLE needs .size."),
    ({"segmentation": {"size": [200, 300], "counts": [60001]}}, "add up"),
    ({"segmentation": {"size": [200, 300], "counts": [60001, -1]}}, "add up"),
    ({"segmentation": {"size": [200, 300], "counts": ["x"]}}, "add up"),
    ({"segmentation": {"size": [200, 300], "counts": None}}, "neither"),
    ({"segmentation": {"size": [200, 300], "counts": ""}}, "valid RLE"),
    ({"segmentation": {"size": [200, 300], "counts": "ZZ"}}, "valid RLE"),  # says that more follows
    ({"segmentation": {"size": [200, 300], "counts": "12"}}, "valid RLE"),
    ({"segmentation": {"size": [200, 300], "counts": "o" * 40 + "1"}}, "valid RLE"),
    ({"segmentation": {"size": [200, 300], "counts": "\u00e9"}}, "valid RLE"),
    ({"area": None}, "area"),
    ({"iscrowd": "yes"}, "iscrowd is 'yes', neither 0 nor 1"),
    ({"area": float("nan")}, "area"),
    ({"image_id": 77}, "image_id 77 is not"),
    ({"image_id": [1]}, "is not in"),
    ({"category_id": 77}, "category_id 77 is not"),
]


@pytest.mark.parametrize(("change", "reason"), BROKEN_ANNOTATIONS)
def test_broken_annotations_are_named(change: dict[str, Any], reason: str) -> None:
    data = small()
    data["annotations"][1].update(change)
    with pytest.raises(InputError, match=f"^gt.json: 1 broken annotations.*id 9: .*{reason}") as error:
        GroundTruth(data, "gt.json")
    assert "\n" not in str(error.value)


def test_many_broken_annotations_are_counted() -> None:
    data = small()
    data["annotations"] = [{**data["annotations"][0], "id": k, "area": "big"} for k in range(30)]
    with pytest.raises(InputError, match=r"30 broken.*id 9:.*and 20 more$"):
        GroundTruth(data)


@pytest.mark.parametrize("key", ["image_id", "category_id", "area", "segmentation"])
def test_missing_keys_are_named(key: str) -> None:
    data = small()
    del data["annotations"][0][key]
    with pytest.raises(InputError, match=f"id 3: no '{key}'"):
        GroundTruth(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("images"), "no list 'images'"),
        (lambda d: d.update(annotations={}), "no list 'annotations'"),
        (lambda d: d["annotations"][0].pop("id"), "annotation number 0 of the list has no 'id'"),
        (lambda d: d["annotations"][0].update(id=9), "annotation id 9 occurs twice"),
        (lambda d: d["images"][0].update(id=2), "image id 2 occurs twice"),
        (lambda d: d["images"][0].pop("height"), "image id 1 has no valid 'height'"),
        (lambda d: d["images"][0].update(width=0), "image id 1 has no valid"),
        (lambda d: d["categories"].append(8), "category number 2 of the list has no 'id'"),
    ],
)
def test_broken_ground_truth_is_refused(change: Any, message: str) -> None:
    data = small()
    change(data)
    with pytest.raises(InputError, match=message):
        GroundTruth(data)
    with pytest.raises(InputError, match="no list 'images'"):
        GroundTruth([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "1"}, "1 image ids are not in gt.json: '1'; use the annotations"),
        ({"image_id": 99}, "1 image ids are not in gt.json: 99; use the annotations"),
        ({"category_id": 99}, "1 category ids are not in gt.json: 99"),
        ({"score": float("nan")}, r"entry 1 \(image id 2\): score is not"),
        ({"score": "high"}, "score is not"),
        ({"segmentation": {"size": [300, 200], "counts": "1"}}, r"entry 1 \(image id 2\): the mask is 200 x 300"),
        ({"segmentation": {"size": [200, 300], "counts": "1"}}, r"entry 1 \(image id 2\): counts"),
        ({"segmentation": 5}, "entry 1.*neither"),
    ],
)
def test_broken_detections_are_refused(change: dict[str, Any], message: str) -> None:
    data = small()
    found = [{**a, "score": 0.5} for a in data["annotations"]]
    found[1].update(change)
    with pytest.raises(InputError, match=message) as error:
        evaluate_detections(GroundTruth(data, "gt.json"), found)
    assert "\n" not in str(error.value)


def test_scores_may_be_of_numpy() -> None:
    data = small()
    found = [{**a, "score": 0.5} for a in data["annotations"]]
    packed = [{**a, "score": np.float32(0.5)} for a in data["annotations"]]
    first, second = (evaluate_detections(GroundTruth(data), one)["segm"].summary for one in (found, packed))
    assert first == second


def test_entries_that_are_no_detections_are_refused() -> None:
    truth = GroundTruth(small())
    for found in ([{"image_id": 1}], [5]):
        with pytest.raises(InputError, match=r"r\.json: entry 0 has no"):
            evaluate_detections(truth, found, name="r.json")  # type: ignore[list-item]
    with pytest.raises(InputError, match="not a list"):
        evaluate_detections(truth, {"annotations": []}, name="r.json")  # type: ignore[arg-type]


def test_reading(tmp_path: Path) -> None:
    plain, packed, broken = tmp_path / "a.json", tmp_path / "a.json.gz", tmp_path / "b.json"
    plain.write_text(json.dumps(small()))
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_json(plain) == read_json(packed) == small()
    broken.write_text('{"images": [],\n "annotations": [}')
    with pytest.raises(InputError, match=r"b\.json: not valid JSON, line 2 column 18"):
        read_json(broken)
    packed.write_bytes(packed.read_bytes()[:-20])
    broken.write_bytes(b'{"a": "\xff"}')
    for path, message in (
        (packed, "cannot be read"),
        (broken, "UTF-8"),
        (tmp_path / "c", "no such file"),
        (tmp_path, "read"),
    ):
        with pytest.raises(InputError, match=message):
            read_json(path)


def test_several_processes_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.boundary._WORTH", 1)
    rng = np.random.default_rng(5)
    data = helpers.synthetic(rng)
    found = helpers.make_detections(data, rng)
    pools: list[int] = []
    pool = eval.boundary.ProcessPoolExecutor
    monkeypatch.setattr("eval.boundary.ProcessPoolExecutor", lambda n, **how: pools.append(n) or pool(n, **how))
    alone, together = (evaluate_detections(GroundTruth(data), found, processes=n) for n in (1, 2))
    assert pools == [2]
    assert alone == together and alone["boundary"].summary["AP"] is not None


def test_few_masks_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.boundary.ProcessPoolExecutor", lambda *_, **__: pytest.fail("starts processes"))
    data = small()
    found = [{**a, "score": 0.5} for a in data["annotations"]]
    assert evaluate_detections(GroundTruth(data), found, processes=8)["boundary"].summary["AP"] == pytest.approx(100)


def test_only_pairs_that_exist_are_looked_at() -> None:
    """Two pairs of an image and a category have anything in them, of more than 120,000."""
    data = small()
    data["images"] += [{"id": k, "height": 200, "width": 300} for k in range(100, 400)]
    data["categories"] += [{"id": k, "name": str(k)} for k in range(100, 500)]
    truth, found = GroundTruth(data), [{**a, "score": 0.5} for a in data["annotations"]]
    calls: list[str] = []
    sys.setprofile(lambda frame, event, value: calls.append(event))
    try:
        scores = evaluate_detections(truth, found)
    finally:
        sys.setprofile(None)
    assert scores["boundary"].summary["AP"] == pytest.approx(100)
    assert len(calls) < 100_000, len(calls)


def test_categories_of_one_name_keep_their_own_numbers() -> None:
    data = small()
    for category in data["categories"]:
        category["name"] = "a"
    first = [one for one in data["annotations"] if one["category_id"] == data["categories"][0]["id"]]
    found = evaluate_detections(GroundTruth(data), [{**one, "score": 0.5} for one in first])["segm"]
    keys = [f"a (id {category['id']})" for category in data["categories"]]
    assert list(found.per_category) == keys and found.per_category[keys[0]] == pytest.approx(100)


def test_ids_may_be_numbers_and_texts() -> None:
    data = small()
    for kind, old, new in (("images", "image_id", "2b"), ("categories", "category_id", "b")):
        data[kind][1]["id"] = new
        data["annotations"][1][old] = new
    found = [{**a, "score": 0.5} for a in data["annotations"]]
    for scores in evaluate_detections(GroundTruth(data), found).values():
        assert scores.summary["AP"] == pytest.approx(100) and scores.per_category == pytest.approx({"a": 100, "b": 100})


@pytest.mark.parametrize("metrics", ["boundary", ["segmm"], ("segm", "bbox")])
def test_metrics_that_are_none_are_refused(metrics: Any) -> None:
    truth = GroundTruth({"images": [], "annotations": [], "categories": []})
    with pytest.raises(InputError, match="metrics are a list out of segm, boundary, lvis, cityscapes; not '"):
        evaluate_detections(truth, [], metrics)
    assert evaluate_detections(truth, ()).keys() == {"segm", "boundary"}  # any sequence of detections
