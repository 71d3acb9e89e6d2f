"""Matches against pycocotools' own, on IoUs with ties, on thresholds, and with crowds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

from eval.checks import GroundTruth
from eval.matching import PARAMS, Overlaps, arrange, match

LIMIT = 6


def entry(key: int, image: int, rng: np.random.Generator, **more: Any) -> Any:
    area = float(rng.choice([100, 1024, 2000, 9216, 20_000]))
    return {"id": key, "image_id": image, "category_id": 1, "area": area, "segmentation": {}, "iscrowd": 0, **more}


@pytest.mark.parametrize("seed", range(20))
def test_matches_are_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [{"id": key, "height": 9, "width": 9} for key in (4, 2)]
    truth = GroundTruth({"images": images, "annotations": [], "categories": [{"id": 1}]})
    truths = [
        entry(k + 1, int(rng.choice([2, 4])), rng, iscrowd=int(rng.random() < 0.2), own_ignore=0) for k in range(9)
    ]
    found = [entry(k + 1, int(rng.choice([2, 4])), rng, score=float(rng.integers(0, 5))) for k in range(14)]
    entries = arrange(truth, truths, found, LIMIT)
    assert len(entries.scores) < 14 and entries.images == [2, 4]
    ious = rng.choice([0.0, 0.3, *PARAMS.iouThrs, 0.52, 0.77, 1.0], (len(entries.scores), 9))
    same = entries.image[:, None] == entries.truth_image
    row, column = np.nonzero(same & (ious >= 0.5))
    ours = match(entries, Overlaps(row, column, ious[row, column]), entries.crowd, PARAMS.areaRng)
    theirs: Any = COCOeval()
    theirs.params = PARAMS
    for k, image in enumerate(entries.images):
        mine, objects = entries.image == k, entries.truth_image == k
        theirs._gts = {(image, 1): [one | {"ignore": one["iscrowd"]} for one in truths if one["image_id"] == image]}
        theirs._dts = {(image, 1): [one for one in found if one["image_id"] == image]}
        theirs.ious = {(image, 1): ious[mine][:, objects]}
        for a, area in enumerate(PARAMS.areaRng):
            expected = theirs.evaluateImg(image, 1, area, LIMIT)
            assert entries.scores[mine].tolist() == expected["dtScores"]
            np.testing.assert_array_equal(ours.matched[a][:, mine], expected["dtMatches"] > 0)
            np.testing.assert_array_equal(ours.ignored[a][:, mine], expected["dtIgnore"])
            assert sorted(ours.truth_ignored[a, objects]) == sorted(expected["gtIgnore"])
