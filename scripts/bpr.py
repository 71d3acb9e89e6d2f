"""BPR, the strongest generic refiner of the related work, as a compact rival: train it, refine COCO results with it.

    # the host's detections on its own training images, then the network, then other results
    python scripts/evaluate.py --checkpoint HOST --val-json train.json --val-images DIR --results-out train_results.json
    python scripts/bpr.py train --results train_results.json --annotations train.json --images DIR --out bpr.pt
    python scripts/bpr.py refine --checkpoint bpr.pt --results R.json --annotations GT.json --images DIR --out R2.json

Patches, their preparation and the way they are put together are the published ones; the network is smaller (HRNet
there), and starts from random weights. It learns from detections whose mask has an IoU above 0.5 with an object of
their class. refine keeps every entry, in its place and with all its fields but the segmentation; score the two files
with evaluate.py.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from data.coco import read_image
from engine import checkpoint
from engine.distributed import choose_device
from eval.checks import GroundTruth, check_detections
from eval.results import check_writable, read_json, save_results
from models.bpr import BPR, BPRConfig
from models.bpr.patches import propose
from sharpcontour.config import from_dict, to_dict
from sharpcontour.errors import InputError

Entry = dict[str, Any]
NAME = "bpr"  # in checkpoints, where others have a host's
MIN_IOU = 0.5  # of a mask with its object, to be learned from


def main() -> int:
    """One of the two."""
    args = parse_arguments()
    check_writable(args.out)
    truth = GroundTruth(read_json(args.annotations), args.annotations)
    entries = read_json(args.results)
    checked = check_detections(entries, truth, args.results)
    files = image_files(truth, args)
    if args.task == "train":
        train(pairs(checked, truth), files, args)
    else:
        refine(entries, checked, files, args)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    for name, out in (("train", "checkpoint to write"), ("refine", "file for the refined results")):
        add = tasks.add_parser(name).add_argument
        add("--results", required=True, metavar="R.json", help="COCO results")
        add("--annotations", required=True, metavar="GT.json", help="COCO annotations of the same images")
        add("--images", required=True, metavar="DIR", help="folder of the images")
        add("--out", required=True, metavar="FILE", help=out)
        add("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto", help="default: the first there is")
        if name == "refine":
            add("--checkpoint", required=True, metavar="CKPT", help="of bpr.py train")
            continue
        add("--iterations", type=int, default=160_000, metavar="N", help="updates (default: 160000, as published)")
        add("--batch", type=int, default=32, metavar="N", help="patches of an update (default: 32, as published)")
        add("--lr", type=float, default=0.01, metavar="RATE", help="at first; falls to 1e-4 (default: 0.01)")
        add("--seed", type=int, default=0, metavar="S", help="default: 0")
        add("--workers", type=int, default=2, metavar="N", help="loader processes (default: 2)")
    return parser.parse_args()


def image_files(truth: GroundTruth, args: argparse.Namespace) -> dict[Any, Path]:
    """The file of every image; InputError unless all with detections are there."""
    names = {key: image.get("file_name") for key, image in truth.images.items()}
    missing = [str(name) for name in names.values() if not name or not (Path(args.images) / name).is_file()]
    if missing:
        raise InputError(f"{args.images}: {len(missing)} of {len(names)} images are missing, the first {missing[0]}")
    return {key: Path(args.images) / str(name) for key, name in names.items()}


def pairs(detections: list[Entry], truth: GroundTruth) -> list[tuple[Any, Any, Any]]:
    """Image id, run lengths of a detection, and of the object that it overlaps most, where it does enough."""
    objects: dict[tuple[Any, Any], list[Any]] = defaultdict(list)
    for annotation in truth.coco.dataset["annotations"]:
        if not annotation.get("iscrowd"):
            objects[annotation["image_id"], annotation["category_id"]].append(annotation["segmentation"])
    found = []
    for entry in detections:
        candidates = objects[entry["image_id"], entry["category_id"]]
        iou = (
            coco_mask.iou([entry["segmentation"]], candidates, [0] * len(candidates))
            if candidates
            else np.zeros((1, 1))
        )
        if iou.max() > MIN_IOU:
            found.append((entry["image_id"], entry["segmentation"], candidates[int(iou[0].argmax())]))
    if not found:
        raise InputError(f"no detection overlaps an object of its class by more than {MIN_IOU}; nothing to learn from")
    return found


class PatchDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """A random patch of a detection: image (3, S, S) uint8, its mask (S, S) bool, its object (S, S) bool.

    Args:
        pairs: from :func:`pairs`.
        files: of the images.
        config: of the patches.
        seed: of the order, the choice of patches, flips and colours.
        count: samples.
    """

    def __init__(
        self, pairs: list[tuple[Any, Any, Any]], files: dict[Any, Path], config: BPRConfig, seed: int, count: int
    ) -> None:
        self.pairs, self.files, self.config, self.seed, self.count = pairs, files, config, seed, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        while True:  # images that are no larger than a patch have none
            key, coarse, wanted = self.pairs[rng.integers(len(self.pairs))]
            masks = torch.from_numpy(coco_mask.decode([coarse, wanted])).permute(2, 0, 1).bool()
            patches = propose(masks[:1], self.config.patch, self.config.nms_train)
            if len(patches.mask):
                break
        x, y = patches.corner[rng.integers(len(patches.mask))].tolist()
        part = slice(y, y + self.config.patch), slice(x, x + self.config.patch)
        image = torch.from_numpy(read_image(self.files[key])[part]).permute(2, 0, 1).float()
        # Photometric distortion: contrast and brightness.
        image = ((image - 128) * rng.uniform(0.5, 1.5) + 128 + rng.uniform(-32, 32)).clamp(0, 255)
        sample = image, masks[0][part], masks[1][part]
        return tuple(value.flip(-1) for value in sample) if rng.random() < 0.5 else sample  # type: ignore[return-value]


def train(pairs: list[tuple[Any, Any, Any]], files: dict[Any, Path], args: argparse.Namespace) -> None:
    """SGD with a polynomial rate, as published."""
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    model = BPR(BPRConfig()).to(device).train()
    dataset = PatchDataset(pairs, files, model.config, args.seed, args.iterations * args.batch)
    loader = DataLoader(dataset, args.batch, num_workers=args.workers)
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, weight_decay=5e-4)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{len(pairs)} detections to learn from; {parameters:.2f} M parameters", flush=True)
    recent = 0.0
    with tqdm(loader, desc="bpr", unit="update", disable=None) as bar:
        for step, batch in enumerate(bar):
            rate = (args.lr - 1e-4) * (1 - step / args.iterations) ** 0.9 + 1e-4
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = model.loss(*(value.to(device) for value in batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 20 == 0:
                value = loss.item()
                if not np.isfinite(value):
                    raise InputError(f"the loss is {value} after {step} updates; choose a lower --lr")
                recent = 0.8 * recent + 0.2 * value if step else value
                bar.set_postfix(loss=f"{recent:.3f}")
    config = {"model": NAME, "bpr": to_dict(model.config)}
    state = {"model": model.state_dict(), "config": config, "categories": [], "step": args.iterations}
    checkpoint.save_file(state, args.out)
    print(f"{args.out}: after {args.iterations} updates of {args.batch} patches, loss {recent:.3f}")


def refine(entries: list[Entry], checked: list[Entry], files: dict[Any, Path], args: argparse.Namespace) -> None:
    """All results, image by image."""
    model = load(args.checkpoint).to(choose_device(args.device))
    device = model.pixel_mean.device
    places: dict[Any, list[int]] = defaultdict(list)
    for place, entry in enumerate(checked):
        places[entry["image_id"]].append(place)
    output, begin = list(entries), time.perf_counter()
    for key, indices in tqdm(places.items(), desc="refinement", unit="image", disable=None):
        image = torch.from_numpy(read_image(files[key])).permute(2, 0, 1).to(device)
        stack = coco_mask.decode([checked[index]["segmentation"] for index in indices])
        masks = torch.from_numpy(stack).permute(2, 0, 1).bool().to(device)
        refined = model.refine(image, masks).cpu().numpy()
        rles = coco_mask.encode(np.asfortranarray(refined.transpose(1, 2, 0).astype(np.uint8)))
        for index, rle in zip(indices, rles, strict=True):
            output[index] = {**entries[index], "segmentation": {**rle, "counts": rle["counts"].decode()}}
    seconds = time.perf_counter() - begin
    save_results(output, args.out)
    print(f"{len(places)} images, {1000 * seconds / max(len(places), 1):.0f} ms each; results are in {args.out}")


def load(path: str) -> BPR:
    """A trained BPR in evaluation mode."""
    state = checkpoint.load(Path(path))
    if state["config"].get("model") != NAME:
        raise InputError(f"{path}: is no checkpoint of bpr.py train")
    model = BPR(from_dict(BPRConfig, state["config"]["bpr"]))
    model.load_state_dict(state["model"])
    return model.eval()


if __name__ == "__main__":
    _cli.run(main)
