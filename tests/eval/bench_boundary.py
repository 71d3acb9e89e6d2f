"""Time of mask AP, of Boundary AP, and of Boundary AP computed literally: python -m tests.eval.bench_boundary [images].

faster-coco-eval takes part where it is installed. With --large: a set as large as COCO's val2017, 100 detections an
image, on one process and on two.

Not collected by pytest; needs the annotations that the tests take from outside the repository.
"""

from __future__ import annotations

import copy
import importlib.util
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from eval.checks import GroundTruth
from eval.metrics import evaluate_detections
from tests.eval.helpers import LiteralBoundaryEval, make_detections, read_real, reference


def seconds(work: Callable[[], Any], repeat: int = 1) -> float:
    best = float("inf")
    for _ in range(repeat):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


def bench(images: int | None = None) -> dict[str, float]:
    """CPU seconds of each, on one thread, the best of three (the literal computation: of one)."""
    cv2.setNumThreads(1)
    data = read_real(images)
    found = make_detections(data, np.random.default_rng(0))
    print(f"{len(data['images'])} images, {len(data['annotations'])} objects, {len(found)} detections")
    truth = GroundTruth(data)
    times = {
        "plain pycocotools, mask AP": seconds(lambda: reference(data, found), 3),
        "check and convert the ground truth": seconds(lambda: GroundTruth(data), 3),
        "mask AP": seconds(lambda: evaluate_detections(truth, found, ["segm"]), 3),
        "Boundary AP": seconds(lambda: evaluate_detections(truth, found, ["boundary"]), 3),
        "both": seconds(lambda: evaluate_detections(truth, found), 3),
        "literal Boundary AP": seconds(lambda: reference(data, found, LiteralBoundaryEval)),
    }
    if importlib.util.find_spec("faster_coco_eval"):
        times["faster-coco-eval, mask AP"] = seconds(lambda: faster(data, found, "segm"), 3)
        times["faster-coco-eval, Boundary AP"] = seconds(lambda: faster(data, found, "boundary"))
    for name, value in times.items():
        print(f"{name:<36}{value:8.2f} s")
    print(f"both / mask AP: {times['both'] / times['mask AP']:.2f}")
    literal, ours = times["literal Boundary AP"], times["Boundary AP"]
    print(f"literal / ours: {literal / ours:.1f}")
    masks = times["plain pycocotools, mask AP"], times["mask AP"]
    print(f"literal / ours, without what mask AP takes: {(literal - masks[0]) / (ours - masks[1]):.1f}")
    return times


def faster(data: dict[str, Any], found: list[dict[str, Any]], kind: str) -> None:
    """The same by faster-coco-eval, on one thread."""
    library = importlib.import_module("faster_coco_eval")
    truth = library.COCO(copy.deepcopy(data))
    detections = truth.loadRes(copy.deepcopy(found))
    evaluator = library.COCOeval_faster(truth, detections, kind, boundary_cpu_count=1, rle_iou_max_workers=1)
    evaluator.evaluate()
    evaluator.accumulate()


def enlarged(images: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Real annotations over and over, and 100 detections for each image that has any."""
    base, rng = read_real(), np.random.default_rng(0)
    objects, found = defaultdict(list), defaultdict(list)
    for one in base["annotations"]:
        objects[one["image_id"]].append(one)
    for one in make_detections(base, rng):
        found[one["image_id"]].append(one)
    data: dict[str, Any] = {"categories": base["categories"], "images": [], "annotations": []}
    detections = []
    for k in range(1, images + 1):
        image = base["images"][k % len(base["images"])]
        data["images"].append({**image, "id": k})
        for one in objects[image["id"]]:
            data["annotations"].append({**one, "id": len(data["annotations"]) + 1, "image_id": k})
        mine = found[image["id"]]
        scores = rng.random(100)
        detections += [
            {**mine[(7 * n + k) % len(mine)], "image_id": k, "score": float(scores[n])}
            for n in range(100 if mine else 0)
        ]
    return data, detections


def bench_large(images: int = 5000) -> None:
    """Wall seconds of each, and the most memory that the process and its children held."""
    cv2.setNumThreads(1)
    data, found = enlarged(images)
    truth = GroundTruth(data)
    print(
        f"{len(data['images'])} images, {len(data['annotations'])} objects, {len(found)} detections; before: {held()}"
    )
    works: dict[str, Callable[[], Any]] = {
        "mask AP": lambda: evaluate_detections(truth, found, ["segm"]),
        "Boundary AP": lambda: evaluate_detections(truth, found, ["boundary"]),
        "both": lambda: evaluate_detections(truth, found),
        "both, two processes": lambda: evaluate_detections(truth, found, processes=2),
        "plain pycocotools, mask AP": lambda: reference(data, found),
    }
    for name, work in works.items():
        begin = time.perf_counter()
        work()
        print(f"{name:<28}{time.perf_counter() - begin:8.1f} s   {held()}", flush=True)


def held() -> str:
    """Peak memory so far."""
    own, children = (
        resource.getrusage(who).ru_maxrss / 2**10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return f"{own:.0f} MiB, largest child {children:.0f} MiB"


if __name__ == "__main__":
    if "--large" in sys.argv:
        bench_large()
    else:
        bench(int(sys.argv[1]) if len(sys.argv) > 1 else None)
