"""Time of mask AP, of Boundary AP, and of Boundary AP computed literally: python -m tests.eval.bench_boundary [images].

Not collected by pytest; needs the annotations that the tests take from outside the repository.
"""

from __future__ import annotations

import sys
import time
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
    for name, value in times.items():
        print(f"{name:<36}{value:8.2f} s")
    print(f"both / mask AP: {times['both'] / times['mask AP']:.2f}")
    literal, ours = times["literal Boundary AP"], times["Boundary AP"]
    print(f"literal / ours: {literal / ours:.1f}")
    masks = times["plain pycocotools, mask AP"], times["mask AP"]
    print(f"literal / ours, without what mask AP takes: {(literal - masks[0]) / (ours - masks[1]):.1f}")
    return times


if __name__ == "__main__":
    bench(int(sys.argv[1]) if len(sys.argv) > 1 else None)
