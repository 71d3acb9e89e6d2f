"""AP* against lvis-api itself."""

from __future__ import annotations

import copy
import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data.lvis import SYNSETS, with_coco_categories
from eval.checks import GroundTruth, check_detections
from eval.lvis import evaluate_lvis, has_cocos_ids, without_other_categories
from eval.metrics import evaluate_detections
from sharpcontour.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")

REAL = Path(__file__).resolve().parents[3] / "shared" / "evalgt"
H, W = 40, 50
SUMMARY = {"AR300": "AR@300", "ARs": "ARs@300", "ARm": "ARm@300", "ARl": "ARl@300"}


def rle(mask: np.ndarray) -> dict[str, Any]:
    found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode()}


def reference(data: dict[str, Any], found: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    """What lvis-api says, with areas by mask as for detections without boxes."""
    monkeypatch.setattr(np, "float", float, raising=False)  # lvis 0.5.3 is older than numpy 2
    from lvis import LVIS, LVISEval, LVISResults

    (folder / "gt.json").write_text(json.dumps(data))
    truth = LVIS(str(folder / "gt.json"))
    plain = [{k: v for k, v in one.items() if k != "bbox"} for one in copy.deepcopy(found)]
    evaluator = LVISEval(truth, LVISResults(truth, plain), "segm")
    evaluator.run()
    return evaluator


def check(data: dict[str, Any], found: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict:
    wanted = reference(data, found, monkeypatch, folder).get_results()
    truth = GroundTruth(data)
    scores = evaluate_lvis(truth, check_detections(found, truth, "results"))
    for name, value in scores.summary.items():
        theirs = wanted[SUMMARY.get(name, name)]
        assert (value is None) == (theirs == -1), name
        assert value is None or abs(value / 100 - theirs) < 1e-12, name
    return scores.summary


def blob(rng: np.random.Generator, size: tuple[int, int] = (H, W)) -> np.ndarray:
    mask = np.zeros(size, bool)
    y, x = rng.integers(0, size[0] - 2), rng.integers(0, size[1] - 2)
    mask[y : y + rng.integers(1, size[0] // 2), x : x + rng.integers(1, size[1] // 2)] = True
    return mask


def federated(seed: int, images: int = 12, categories: int = 5) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Random LVIS annotations and detections: all rules, ties, empty masks, more than 300 on an image."""
    rng = np.random.default_rng(seed)
    data: dict[str, Any] = {
        "info": {},
        "images": [],
        "annotations": [],
        "categories": [{"id": 3 * c + 2, "name": f"c{c}", "frequency": "rcf"[c % 3]} for c in range(categories)],
    }
    ids, found = [c["id"] for c in data["categories"]], []
    for image in range(1, images + 1):
        here = [int(c) for c in ids if rng.random() < 0.5]
        rest = [c for c in ids if c not in here]
        absent = [c for c in rest if rng.random() < 0.5]
        partial = [c for c in here if rng.random() < 0.4] + [c for c in rest if c not in absent and rng.random() < 0.3]
        data["images"].append(
            {"id": image, "height": H, "width": W, "neg_category_ids": absent, "not_exhaustive_category_ids": partial}
        )
        for category in here:
            for _ in range(rng.integers(1, 4)):
                mask = blob(rng)
                area = int(mask.sum()) if rng.random() < 0.8 else int(rng.choice([0, 1024, 9216, 10000]))
                data["annotations"].append(
                    {"id": len(data["annotations"]) + 1, "image_id": image, "category_id": category, "area": area}
                    | {"segmentation": rle(mask), "bbox": [0, 0, 1, 1]}
                )
                for _ in range(rng.integers(0, 3)):
                    moved = np.roll(mask, rng.integers(-1, 2, 2), (0, 1))
                    found.append(detection(image, category, rng, moved))
        for _ in range(400 if image == 1 else 10):
            mask = np.zeros((H, W), bool) if rng.random() < 0.1 else blob(rng)
            found.append(detection(image, int(rng.choice(ids)), rng, mask))
    return data, [found[i] for i in rng.permutation(len(found))]


def detection(image: int, category: int, rng: np.random.Generator, mask: np.ndarray) -> dict[str, Any]:
    score = float(rng.choice([0.5, 0.75, 1.0, rng.random()]))
    return {"image_id": image, "category_id": category, "score": score, "segmentation": rle(mask), "bbox": [0, 0, 9, 9]}


@pytest.mark.parametrize("seed", range(4))
def test_every_rule_as_lvis_api_has_it(seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, found = federated(seed)
    summary = check(data, found, monkeypatch, tmp_path)
    assert summary["AP"] is not None and 0 < summary["AP"] < 100
    assert summary["APl"] is not None and summary["APr"] is not None


def test_categories_without_annotations_and_images_without_detections(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data, found = federated(7, images=4)
    lost = data["categories"][0]["id"]
    data["annotations"] = [one for one in data["annotations"] if one["category_id"] != lost]
    check(data, [one for one in found if one["image_id"] != 2], monkeypatch, tmp_path)
    check(data, found[:1], monkeypatch, tmp_path)


def test_nothing_found_scores_nothing() -> None:
    data, _ = federated(0)
    summary = evaluate_lvis(GroundTruth(data), []).summary
    assert summary["AP"] == 0 and summary["AR300"] == 0


def test_other_annotations_are_refused() -> None:
    data, found = federated(0)
    truth = GroundTruth(data)
    kept, others = without_other_categories([*found, {**found[0], "category_id": 77}], truth, "results")
    assert len(kept) == len(found) and others == {77: 1}
    foreign = [{**found[0], "category_id": 77}, {**found[0], "category_id": "x"}]
    assert evaluate_detections(truth, (*found, *foreign), ["lvis"]) == evaluate_detections(truth, found, ["lvis"])
    with pytest.raises(InputError, match=r"results: 1 category ids are not in ground truth: \[7\]"):
        evaluate_detections(truth, [*found, *foreign, {**found[0], "category_id": [7]}], ["lvis"])
    with pytest.raises(InputError, match=f"results: entry {len(found)} has no 'category_id'"):
        evaluate_detections(truth, [*found, *foreign, {"image_id": 1, "score": 1.0, "segmentation": []}], ["lvis"])
    with pytest.raises(InputError, match=r"none of its categories is in ground truth; scripts/prepare_data.py lvis"):
        without_other_categories([{**found[0], "category_id": 77}], truth, "results")
    del data["images"][0]["neg_category_ids"]
    with pytest.raises(InputError, match="image id 1 has no 'neg_category_ids'; the metric lvis needs LVIS"):
        evaluate_lvis(GroundTruth(data), [])


def test_ids_of_coco_against_annotations_with_lvis_own() -> None:
    data, found = federated(0)  # ids 2, 5, 8, ...
    data["categories"] = [{**c, "synset": SYNSETS[c["id"]]} for c in data["categories"]]
    found = [{**one, "category_id": data["categories"][0]["id"]} for one in found]
    assert not has_cocos_ids(found, GroundTruth(data))
    data["categories"][1]["synset"] = "aardvark.n.01"
    assert has_cocos_ids(found, GroundTruth(data))
    assert not has_cocos_ids([], GroundTruth(data))
    data["categories"].append({"id": 1203, "name": "zucchini", "frequency": "c", "synset": "zucchini.n.02"})
    assert not has_cocos_ids([*found, {**found[0], "category_id": 1203}], GroundTruth(data))


def real_data() -> dict[str, Any]:
    path = REAL / "lvis_v05_val100_gt.json.gz"
    if not path.exists():
        pytest.skip("no real LVIS annotations here")
    return json.loads(gzip.decompress(path.read_bytes()))


def test_cocos_categories_of_real_annotations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = real_data()
    if any("synset" not in category for category in data["categories"]):
        pytest.skip("the sample has COCO's categories already")
    ours = with_coco_categories(data, "lvis")
    assert len(ours["images"]) == 100 and len(ours["annotations"]) == 435 and len(ours["categories"]) == 69
    synsets = {
        entry["coco_cat_id"]: entry["synset"]
        for entry in json.loads((REAL / "coco_to_synset.json").read_text()).values()
    }
    assert synsets == SYNSETS
    assert all(SYNSETS[category["id"]] == category["synset"] for category in ours["categories"])
    check(ours, noisy(ours, 0), monkeypatch, tmp_path)
    check(data, noisy(data, 1), monkeypatch, tmp_path)


def noisy(data: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Detections near real annotations, and others in places that nobody annotated."""
    rng = np.random.default_rng(seed)
    truth, found = GroundTruth(data), []
    by_image: dict[int, list[Any]] = defaultdict(list)
    for one in truth.coco.dataset["annotations"]:
        by_image[one["image_id"]].append(one)
    ids = list(truth.category_names)
    for key, size in truth.sizes.items():
        for one in by_image[key]:
            mask = coco_mask.decode(one["segmentation"]).astype(bool)
            moved = np.roll(mask, rng.integers(-4, 5, 2), (0, 1))
            found.append(detection(key, one["category_id"], rng, moved))
        found += [detection(key, int(rng.choice(ids)), rng, blob(rng, size)) for _ in range(10)]
    return found


def test_translating_what_is_no_lvis_file() -> None:
    with pytest.raises(InputError, match=r"x.json: has no list 'images'"):
        with_coco_categories([], "x.json")
    with pytest.raises(InputError, match=r"x.json: has no synsets or no neg_category_ids; expected LVIS annotations"):
        with_coco_categories({"images": [{"id": 1}], "annotations": [], "categories": []}, "x.json")
