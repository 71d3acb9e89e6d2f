"""Judge a refiner of given masks: worse masks of all annotated objects, before and after refinement.

    # the refiner that comes with the package, on annotations in COCO format
    python scripts/evaluate_masks.py --val-json B.json --val-images DIR
    # beside it on the same masks OpenCV's GrabCut, BPR (scripts/bpr.py) and another trained model
    python scripts/evaluate_masks.py --val-json B.json --val-images DIR --against grabcut bpr.pt runs/anymask_other
    # a run of scripts/train.py --model anymask --refine, with another setting
    python scripts/evaluate_masks.py --checkpoint RUN --val-json B.json --val-images DIR \\
        --set sharpcontour.evolution.ratio=0.02

Every object of at least 400 square pixels gets a worse mask of every kind of data/degrade.py at its usual strength. The
table has, in percent, IoU and Boundary IoU (bands of 2 % and 0.5 % of the image diagonal) before, after and the gain;
the shares of masks whose Boundary IoU at 2 % grew and fell, and the largest loss.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

from data import DataConfig, build_dataset
from data.degrade import KINDS
from engine.config import change_refiner
from sharpcontour.errors import InputError
from sharpcontour.io.files import check_writable, save_results

if TYPE_CHECKING:  # --help needs no torch: what does is imported by the functions that use it
    import torch

    from eval.degraded import Masks, Method
    from models.bpr import BPR


def main() -> int:
    """Refine the worse masks and print the table."""
    args = parse_arguments()
    read = (args.val_json, args.checkpoint, args.weights, *args.against)
    for path in (args.json, args.pictures and Path(args.pictures) / "worst.png"):
        if path:
            check_writable(path, read)
    from engine import distributed
    from engine.logging import say
    from eval.degraded import evaluate_degraded, format_degraded
    from eval.pictures.degraded import draw_worst
    from models import load_model
    from sharpcontour.anymask.refiner import load_refiner

    world = distributed.start(args.device)
    config = DataConfig(name="coco", val_json=args.val_json, val_images=args.val_images)
    dataset = build_dataset(config, "val")
    refiner: Any = (
        load_model(args.checkpoint, world.device)
        if args.checkpoint
        else load_refiner(args.weights, world.device, args.zoom)
    )
    change_refiner(refiner.model, args.overrides)
    others = {name: method_of(name, world.device) for name in args.against}
    result = evaluate_degraded(refiner, dataset, args.kinds, world.main, others)
    say(world, format_degraded(result))
    if world.main and args.json:
        save_results(result, args.json)
    if world.main and args.pictures:
        draw_worst(refiner, dataset, result["worst"], Path(args.pictures))
    distributed.stop()
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults and units."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--val-json", required=True, metavar="FILE", help="annotations in COCO format")
    add("--val-images", required=True, metavar="DIR", help="folder of their images")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--weights", metavar="FILE", help="file of scripts/export.py (default: the package's weights)")
    what.add_argument(
        "--checkpoint", metavar="CKPT", help="checkpoint of a model with a refiner, or the folder of a run"
    )
    add(
        "--against",
        metavar="OTHER",
        nargs="+",
        default=[],
        help="what else refines the same masks: grabcut, or checkpoints of BPR or of models with a refiner",
    )
    add(
        "--kinds",
        nargs="+",
        choices=tuple(KINDS),
        default=list(KINDS),
        metavar="KIND",
        help=f"of worse masks: {', '.join(KINDS)} (default: all)",
    )
    _cli.add_refiner_set(parser)
    add("--pictures", metavar="DIR", help="draw the masks that lost most to DIR")
    add("--json", metavar="OUT", help="write the numbers to this file")
    _cli.add_zoom(parser)
    _cli.add_device(parser)
    args = parser.parse_args()
    if args.checkpoint and args.zoom:
        parser.error(_cli.NO_ZOOM)
    return args


def method_of(name: str, device: torch.device) -> Method:
    """What ``--against`` names: OpenCV's GrabCut, or what a checkpoint refines."""
    from engine import bpr
    from eval.degraded import refined_by
    from eval.grabcut import grabcut
    from models.loading import find_checkpoint, predictor_of

    if name == "grabcut":
        return grabcut
    if not Path(name).exists():
        raise InputError(f"--against {name}: neither grabcut nor a checkpoint that is there")
    path, checkpoint = find_checkpoint(Path(name))
    if checkpoint["config"]["model"] == bpr.NAME:
        return redrawn_by(bpr.model_of(path, checkpoint).to(device))
    return refined_by(predictor_of(path, checkpoint, device))


def redrawn_by(model: BPR) -> Method:
    """What BPR makes of masks."""
    import torch

    def method(image: np.ndarray, masks: Masks) -> Masks:
        coarse = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
        refined = model.refine(torch.from_numpy(image).permute(2, 0, 1), coarse)
        return [coco_mask.decode(rle).astype(bool) for rle in refined]

    return method


if __name__ == "__main__":
    _cli.run(main)
