"""BPR, the strongest generic refiner of the related work, as a compact rival: train it, refine COCO results with it.

    # the host's detections on its own training images, then the network, then other results
    python scripts/evaluate.py --checkpoint HOST --val-json train.json --val-images DIR --results-out train_results.json
    python scripts/bpr.py train --results train_results.json --annotations train.json --images DIR --out bpr.pt
    # for masks from anywhere: the annotated objects' masks, made worse (data/degrade.py), instead of detections
    python scripts/bpr.py train --annotations train.json --images DIR --out bpr.pt
    python scripts/bpr.py refine --checkpoint bpr.pt --results R.json --annotations GT.json --images DIR --out R2.json

Patches, their preparation and the way they are put together are the published ones; the network is smaller (HRNet
there), and starts from random weights. It learns from detections whose mask has an IoU above 0.5 with an object of
their class: of one of them at random a patch at random (published: all patches of 70,000 detections), flipped half of
the time, brightness and contrast changed (published: hue and saturation as well). An interrupted training goes on from
OUT.part when the same command is given again. refine keeps every entry, in its place and with all its fields but the
segmentation, and prints AP and Boundary AP before and after. It too goes on from OUT.part, where it writes down image
by image what is done. Entries on an image that cannot be read stay as they are, and so do those on one that fails (out
of memory, ...): then it ends with status 1, and run again tries the images that failed, and only these.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
from pathlib import Path

from data.journal import Journal, fingerprint_of
from data.result_files import Entry, find_images, read_entries
from engine.lock import TrainingLock
from eval.checks import GroundTruth, check_detections
from eval.metrics import evaluate_detections
from eval.results import format_table
from sharpcontour.io.device import choose_device
from sharpcontour.io.files import check_writable, read_json, save_results


def main() -> int:
    """Train the network, or refine results with it."""
    args = parse_arguments()
    check_writable(args.out, (args.results, args.annotations, getattr(args, "checkpoint", None)))
    import torch  # not before: --help and wrong use need none of these

    from engine import bpr
    from models.bpr import BPR, BPRConfig

    device = choose_device(args.device)
    annotations = read_json(args.annotations)
    truth = GroundTruth(annotations, args.annotations)
    name = args.results or f"masks of {args.annotations} made worse"
    entries = read_entries(args.results, scored=True) if args.results else bpr.worse_entries(truth, args.seed)
    checked = check_detections(entries, truth, name)
    images = find_images(entries, name, args.images, annotations, args.annotations)
    if args.task == "train":
        budget = bpr.Budget(args.iterations, args.batch, args.lr, args.seed)
        torch.manual_seed(budget.seed)
        model = BPR(BPRConfig()).to(device)
        examples = bpr.pairs(checked, truth, name, model.config.patch)
        lock = TrainingLock(Path(args.out), is_file=True)
        bpr.train(model, examples, images, budget, Path(args.out), args.workers)
        lock.release()
        return 0
    model = bpr.load(args.checkpoint).to(device)
    files = [fingerprint_of(path) for path in (args.checkpoint, args.results, args.annotations)]
    with Journal(args.out, {"files": files, "images": args.images}) as journal:
        refined = bpr.refine(model, entries, checked, truth, images, journal)
        save_results(refined.entries, args.out)
        after = score(refined.entries, truth, args.out)
        print(format_table({"coarse": score(entries, truth, args.results), "refined": after}))
        if left := refined.left.summary():
            print(f"left as they are: {left}")
        each = 1000 * refined.seconds / max(len(images), 1)
        print(f"{len(images)} images, {each:.0f} ms each without reading them; results are in {args.out}")
        return journal.finish()


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    for name, out in (("train", "checkpoint to write"), ("refine", "file for the refined results")):
        task = tasks.add_parser(name)
        add = task.add_argument
        without = " (default: worse masks of the annotated objects)" if name == "train" else ""
        add("--results", required=not without, metavar="R.json", help=f"COCO results{without}")
        add("--annotations", required=True, metavar="GT.json", help="COCO annotations of the same images")
        add("--images", required=True, metavar="DIR", help="folder of the images")
        add("--out", required=True, metavar="FILE", help=out)
        _cli.add_device(task)
        if name == "refine":
            add("--checkpoint", required=True, metavar="CKPT", help="of bpr.py train")
            continue
        add("--iterations", type=int, default=160_000, metavar="N", help="updates (default: 160000, as published)")
        add("--batch", type=int, default=32, metavar="N", help="patches of an update (default: 32, as published)")
        add("--lr", type=float, default=0.01, metavar="RATE", help="at first; falls to 1e-4 (default: 0.01)")
        add("--seed", type=int, default=0, metavar="S", help="default: 0")
        add("--workers", type=int, default=2, metavar="N", help="loader processes (default: 2)")
    args = parser.parse_args()
    if args.task == "train" and (min(args.iterations, args.batch) < 1 or args.workers < 0 or args.lr <= 0):
        parser.error("--iterations and --batch must be 1 or more, --workers 0 or more, --lr above 0")
    return args


def score(entries: list[Entry], truth: GroundTruth, name: str) -> dict[str, dict[str, float | None]]:
    """Mask AP and Boundary AP, as :func:`eval.results.format_table` takes them."""
    return {metric: scores.summary for metric, scores in evaluate_detections(truth, entries, name=name).items()}


if __name__ == "__main__":
    _cli.run(main)
