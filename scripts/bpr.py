"""BPR, the strongest generic refiner of the related work, as a compact rival: train it, refine COCO results with it.

    # the host's detections on its own training images, then the network, then other results
    python scripts/evaluate.py --checkpoint HOST --val-json train.json --val-images DIR --results-out train_results.json
    python scripts/bpr.py train --results train_results.json --annotations train.json --images DIR --out bpr.pt
    python scripts/bpr.py refine --checkpoint bpr.pt --results R.json --annotations GT.json --images DIR --out R2.json

Patches, their preparation and the way they are put together are the published ones; the network is smaller (HRNet
there), and starts from random weights. It learns from detections whose mask has an IoU above 0.5 with an object of
their class: of one of them at random a patch at random (published: all patches of 70,000 detections), flipped half of
the time, brightness and contrast changed (published: hue and saturation as well). An interrupted training goes on from
OUT.part when the same command is given again. refine keeps every entry, in its place and with all its fields but the
segmentation, and prints AP and Boundary AP before and after.
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
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from data.result_files import Entry, ImageFile, find_images, read_entries
from engine import checkpoint
from engine.distributed import choose_device
from eval.checks import GroundTruth, check_detections
from eval.metrics import evaluate_detections
from eval.results import format_table
from models.bpr import BPR, BPRConfig
from models.bpr.patches import open_windows, propose
from models.loading import load_weights, read_checkpoint
from sharpcontour.errors import InputError
from sharpcontour.io.files import check_writable, read_json, save_results
from sharpcontour.io.images import read_image
from sharpcontour.io.plain import from_dict, to_dict

NAME = "bpr"  # in checkpoints, where others have a host's
MIN_IOU = 0.5  # of a mask with its object, to be learned from
SAVE_EVERY = 500  # updates; an interrupted training loses no more
Pair = tuple[Any, dict[str, Any], dict[str, Any]]  # image id, run lengths of a detection, and of its object


def main() -> int:
    """One of the two."""
    args = parse_arguments()
    if Path(args.out).resolve() == Path(args.results).resolve():
        raise InputError(f"--out {args.out} is the file of --results; choose another name")
    check_writable(args.out)
    entries = read_entries(args.results, scored=True)
    annotations = read_json(args.annotations)
    truth = GroundTruth(annotations, args.annotations)
    checked = check_detections(entries, truth, args.results)
    images = find_images(entries, args.results, args.images, annotations, args.annotations)
    if args.task == "train":
        train(checked, truth, images, args)
    else:
        refine(entries, checked, truth, images, args)
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
    args = parser.parse_args()
    if args.task == "train" and (min(args.iterations, args.batch) < 1 or args.workers < 0 or args.lr <= 0):
        parser.error("--iterations and --batch must be 1 or more, --workers 0 or more, --lr above 0")
    return args


def read(path: Path, size: tuple[int, int]) -> np.ndarray:
    """An image (height, width, 3) uint8 RGB; InputError unless it has the annotated size."""
    image = read_image(path)
    if image.shape[:2] != size:
        raise InputError(
            f"{path}: the image has {image.shape[1]} x {image.shape[0]} pixels, the annotations say "
            f"{size[1]} x {size[0]}; correct one of them"
        )
    return image


def pairs(detections: list[Entry], truth: GroundTruth, name: str, patch: int) -> list[Pair]:
    """What can be learned from.

    Args:
        detections: checked.
        truth: annotations; crowds do not count.
        name: of the results, for error messages.
        patch: px; smaller images have no patches.
    """
    objects: dict[tuple[Any, Any], list[Any]] = defaultdict(list)
    for annotation in truth.coco.dataset["annotations"]:
        if not annotation["iscrowd"]:
            objects[annotation["image_id"], annotation["category_id"]].append(annotation["segmentation"])
    found = []
    for entry in detections:
        candidates = objects.get((entry["image_id"], entry["category_id"]))
        if candidates and min(truth.sizes[entry["image_id"]]) > patch:
            iou = coco_mask.iou([entry["segmentation"]], candidates, [0] * len(candidates))[0]
            if iou.max() > MIN_IOU:
                found.append((entry["image_id"], entry["segmentation"], candidates[int(iou.argmax())]))
    if not found:
        raise InputError(
            f"{name}: no detection overlaps an object of its class by IoU {MIN_IOU} on an image larger than {patch} "
            "pixels; nothing to learn from"
        )
    return found


class PatchDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """A random patch of a detection: image (3, S, S) float32, 0 to 255, its mask (S, S) bool, its object (S, S) bool.

    Args:
        pairs: from :func:`pairs`.
        files: of the images.
        config: of the patches.
        seed: of the order, the choice of patches, flips and colours.
        count: samples.
    """

    def __init__(self, pairs: list[Pair], files: dict[Any, Path], config: BPRConfig, seed: int, count: int) -> None:
        self.pairs, self.files, self.config, self.seed, self.count = pairs, files, config, seed, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        key, coarse, wanted = self.pairs[rng.integers(len(self.pairs))]
        size, side = (coarse["size"][0], coarse["size"][1]), self.config.patch
        patches = propose(open_windows([coarse], size, side), side, self.config.nms_train)
        x, y = patches.corner[rng.integers(len(patches.mask))].tolist()
        part = slice(y, y + side), slice(x, x + side)
        masks = torch.from_numpy(coco_mask.decode([coarse, wanted])[part]).permute(2, 0, 1).bool()
        image = torch.from_numpy(read(self.files[key], size)[part]).permute(2, 0, 1).float()
        # Photometric distortion: contrast and brightness.
        image = ((image - 128) * rng.uniform(0.5, 1.5) + 128 + rng.uniform(-32, 32)).clamp(0, 255)
        sample = image, masks[0], masks[1]
        return tuple(value.flip(-1) for value in sample) if rng.random() < 0.5 else sample  # type: ignore[return-value]


def train(detections: list[Entry], truth: GroundTruth, images: list[ImageFile], args: argparse.Namespace) -> None:
    """SGD with a polynomial rate, as published; resumes what was interrupted."""
    torch.manual_seed(args.seed)
    model = BPR(BPRConfig()).to(choose_device(args.device)).train()
    device = model.pixel_mean.device
    examples = pairs(detections, truth, args.results, model.config.patch)
    files = {image.id: image.path for image in images}
    dataset = PatchDataset(examples, files, model.config, args.seed, args.iterations * args.batch)
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, weight_decay=5e-4)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{len(examples)} detections to learn from; {parameters:.2f} M parameters", flush=True)
    partial = Path(f"{args.out}.part")
    budget = {key: getattr(args, key) for key in ("iterations", "batch", "lr", "seed")} | {"detections": len(examples)}
    first = resume(partial, model, optimizer, budget)
    rest = Subset(dataset, range(first * args.batch, len(dataset)))
    loader = DataLoader(rest, args.batch, num_workers=args.workers)
    recent = 0.0
    with tqdm(loader, desc="bpr", unit="update", initial=first, total=args.iterations, disable=None) as bar:
        for step, batch in enumerate(bar, first):
            rate = (args.lr - 1e-4) * (1 - step / args.iterations) ** 0.9 + 1e-4
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = model.loss(*(value.to(device) for value in batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done, to_save = step + 1, (step + 1) % SAVE_EVERY == 0
            if step % 20 == 0 or to_save or done == args.iterations:
                value = loss.item()
                if not np.isfinite(value):
                    raise InputError(f"the loss is {value} after {step} updates; choose a lower --lr")
                recent = 0.8 * recent + 0.2 * value if step > first else value
                bar.set_postfix(loss=f"{recent:.3f}")
            if to_save:
                save(partial, model, done, optimizer=optimizer.state_dict(), budget=budget)
    save(Path(args.out), model, args.iterations)
    partial.unlink(missing_ok=True)
    print(f"{args.out}: after {args.iterations} updates of {args.batch} patches, loss {recent:.3f}")


def save(path: Path, model: BPR, step: int, **more: Any) -> None:
    """A checkpoint, as :func:`load` and :func:`resume` read it."""
    config = {"model": NAME, "bpr": to_dict(model.config)}
    checkpoint.save_file({"model": model.state_dict(), "config": config, "categories": [], "step": step, **more}, path)


def resume(path: Path, model: BPR, optimizer: torch.optim.Optimizer, budget: dict[str, Any]) -> int:
    """Restore what an interrupted training has left, if it has; the updates that were done.

    Raises:
        InputError: where that training had another budget.
    """
    if not path.is_file():
        return 0
    state = read_checkpoint(path)
    if state.get("budget") != budget:
        raise InputError(f"{path}: was begun with {state.get('budget')}, not {budget}; remove it or change --out")
    load_weights(model, state, path)
    optimizer.load_state_dict(state["optimizer"])
    print(f"{path}: goes on after {state['step']} updates", flush=True)
    return int(state["step"])


def refine(
    entries: list[Entry], checked: list[Entry], truth: GroundTruth, images: list[ImageFile], args: argparse.Namespace
) -> None:
    """All results, image by image, and their AP before and after."""
    model = load(args.checkpoint).to(choose_device(args.device))
    output, seconds = list(entries), 0.0
    for file in tqdm(images, desc="refinement", unit="image", disable=None):
        pixels = read(file.path, truth.sizes[file.id])
        begin = time.perf_counter()  # from run lengths to run lengths, without reading the image
        coarse = [checked[index]["segmentation"] for index in file.entries]
        refined = model.refine(torch.from_numpy(pixels).permute(2, 0, 1), coarse)
        seconds += time.perf_counter() - begin
        for index, old, new in zip(file.entries, coarse, refined, strict=True):
            if new is not old:
                output[index] = {**entries[index], "segmentation": new}
    save_results(output, args.out)
    print(format_table({"coarse": score(entries, truth, args.results), "refined": score(output, truth, args.out)}))
    each = 1000 * seconds / max(len(images), 1)
    print(f"{len(images)} images, {each:.0f} ms each without reading them; results are in {args.out}")


def score(entries: list[Entry], truth: GroundTruth, name: str) -> dict[str, Any]:
    """Mask AP and Boundary AP, as :func:`eval.results.format_table` takes them."""
    return {metric: scores.summary for metric, scores in evaluate_detections(truth, entries, name=name).items()}


def load(path: str) -> BPR:
    """A trained BPR in evaluation mode; InputError where the file is none, or does not fit."""
    state = read_checkpoint(Path(path))
    config = state["config"]
    if not isinstance(config, dict) or config.get("model") != NAME or not isinstance(config.get("bpr"), dict):
        raise InputError(f"{path}: is no checkpoint of bpr.py train")
    try:
        model = BPR(from_dict(BPRConfig, config["bpr"]))
    except InputError as error:
        raise InputError(f"{path}: its configuration does not fit this version ({error})") from error
    load_weights(model, state, Path(path))
    return model.eval()


if __name__ == "__main__":
    _cli.run(main)
