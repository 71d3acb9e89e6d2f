"""BPR's training and its refinement of COCO results; the command is ``scripts/bpr.py``."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate
from tqdm import tqdm

from data.annotations import Id, Problems
from data.degrade import worsen
from data.journal import Journal
from data.loader import Guarded
from data.result_files import Entry, ImageFile, note_left
from engine import checkpoint
from eval.checks import CheckedDetection, GroundTruth
from models.bpr import BPR, BPRConfig
from models.bpr.patches import open_windows, propose
from models.loading import load_weights, read_checkpoint
from sharpcontour.errors import InputError
from sharpcontour.io.images import read_image
from sharpcontour.io.plain import from_dict, to_dict
from sharpcontour.masks.run_lengths import RLE

NAME = "bpr"  # in checkpoints, where others have a host's
MIN_IOU = 0.5  # of a mask with its object, to be learned from
WORSE = 3  # masks of each object, where there are no detections to learn from
FLOOR = 1e-4  # of the learning rate
SAVE_EVERY = 500  # updates; an interrupted training loses no more
Pair = tuple[Id, RLE, RLE]  # image id, run lengths of a detection, and of its object


@dataclass
class Budget:
    """How long a training is; the defaults are the published ones."""

    iterations: int = 160_000  # updates
    batch: int = 32  # patches of an update
    lr: float = 0.01  # at first; falls to 1e-4
    seed: int = 0


def pairs(detections: Sequence[CheckedDetection], truth: GroundTruth, name: str, patch: int) -> list[Pair]:
    """The detections that BPR can learn from, as (image id, mask, mask of the best object of the same class).

    Args:
        detections: checked.
        truth: annotations; crowds do not count.
        name: of the results, for error messages.
        patch: px; smaller images have no patches.
    """
    objects: dict[tuple[Id, Id], list[RLE]] = defaultdict(list)
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


def worse_entries(truth: GroundTruth, seed: int) -> list[Entry]:
    """Detections to learn from where there are none: each annotated object's mask, made worse in three ways at random.

    The masks are those that AnyMask learns from, see ``data/degrade.py``. Crowds have none.

    Args:
        truth: annotations.
        seed: of what is random.
    """
    entries = []
    annotations = truth.coco.dataset["annotations"]
    for place, annotation in enumerate(tqdm(annotations, desc="worse masks", unit="object", disable=None)):
        if annotation["iscrowd"]:
            continue
        mask = coco_mask.decode(annotation["segmentation"]).astype(bool)
        for copy in range(WORSE):
            worse = worsen(mask, np.random.default_rng((seed, place, copy)))
            rle = coco_mask.encode(np.asfortranarray(worse, np.uint8))
            own = {key: annotation[key] for key in ("image_id", "category_id")}
            entries.append({**own, "segmentation": {**rle, "counts": rle["counts"].decode()}, "score": 1.0})
    return entries


class PatchDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Random patches of detections.

    A sample is the image (3, S, S) float32, 0 to 255, the detection's mask (S, S) bool and the object's mask (S, S)
    bool.

    Args:
        pairs: from :func:`pairs`.
        files: of the images.
        config: of the patches.
        seed: of the order, the choice of patches, flips and colours.
        count: samples.
    """

    def __init__(self, pairs: list[Pair], files: dict[Id, Path], config: BPRConfig, seed: int, count: int) -> None:
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
        image = torch.from_numpy(read_image(self.files[key], size=size)[part]).permute(2, 0, 1).float()
        # Photometric distortion: contrast and brightness.
        image = ((image - 128) * rng.uniform(0.5, 1.5) + 128 + rng.uniform(-32, 32)).clamp(0, 255)
        sample = image, masks[0], masks[1]
        return tuple(value.flip(-1) for value in sample) if rng.random() < 0.5 else sample  # type: ignore[return-value]


def _collate(samples: list[Any]) -> Any:
    """A batch, or what is wrong with one of its samples."""
    return next((sample for sample in samples if isinstance(sample, InputError)), None) or default_collate(samples)


def train(
    model: BPR, examples: list[Pair], images: Sequence[ImageFile], budget: Budget, out: Path, workers: int
) -> None:
    """Train BPR by SGD with a polynomial rate, as published; resumes what was interrupted.

    Args:
        model: on its device.
        examples: from :func:`pairs`.
        images: that these are on.
        budget: how long.
        out: checkpoint to write; what an interrupted training has done so far is beside it, named OUT.part.
        workers: loader processes.
    """
    model.train()
    device = model.pixel_mean.device
    files = {image.id: image.path for image in images}
    dataset = PatchDataset(examples, files, model.config, budget.seed, budget.iterations * budget.batch)
    optimizer = torch.optim.SGD(model.parameters(), budget.lr, momentum=0.9, weight_decay=5e-4)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{len(examples)} detections to learn from; {parameters:.2f} M parameters", flush=True)
    unfinished = out.with_name(f"{out.name}.part")
    content = repr([(key, coarse["counts"], wanted["counts"]) for key, coarse, wanted in examples])
    known = asdict(budget) | {"detections": hashlib.sha256(content.encode()).hexdigest()[:16]}
    first = resume(unfinished, model, optimizer, known)
    rest = Subset(dataset, range(first * budget.batch, len(dataset)))
    on_gpu = device.type == "cuda"
    loader = DataLoader(Guarded(rest), budget.batch, num_workers=workers, collate_fn=_collate, pin_memory=on_gpu)
    recent, floor = 0.0, min(FLOOR, budget.lr)
    with tqdm(loader, desc="bpr", unit="update", initial=first, total=budget.iterations, disable=None) as bar:
        for step, batch in enumerate(bar, first):
            if isinstance(batch, InputError):
                raise batch
            rate = (budget.lr - floor) * (1 - step / budget.iterations) ** 0.9 + floor
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = model.loss(*(value.to(device, non_blocking=True) for value in batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done, to_save = step + 1, (step + 1) % SAVE_EVERY == 0
            if step % 20 == 0 or to_save or done == budget.iterations:
                value = loss.item()
                if not np.isfinite(value):
                    raise InputError(f"the loss is {value} after {step} updates; choose a lower --lr")
                recent = 0.8 * recent + 0.2 * value if step > first else value
                bar.set_postfix(loss=f"{recent:.3f}")
            if to_save:
                save(unfinished, model, done, optimizer=optimizer.state_dict(), budget=known)
    save(out, model, budget.iterations)
    unfinished.unlink(missing_ok=True)
    told = f", loss {recent:.3f}" if first < budget.iterations else ""
    print(f"{out}: after {budget.iterations} updates of {budget.batch} patches{told}")


def save(path: Path, model: BPR, step: int, **more: object) -> None:
    """Write a checkpoint that :func:`load` and :func:`resume` read."""
    config = {"model": NAME, "bpr": to_dict(model.config)}
    state = {"model": model.state_dict(), "config": config, "categories": [], "step": step, **more}
    checkpoint.save_file(state, path, mend="choose a lower --lr")


def resume(path: Path, model: BPR, optimizer: torch.optim.Optimizer, budget: Mapping[str, object]) -> int:
    """Restore what an interrupted training has left, if anything; returns the number of updates that were done.

    Raises:
        InputError: where that training had another budget, or learned from other detections.
    """
    if not path.is_file():
        return 0
    state = read_checkpoint(path)
    before = state.get("budget")
    before = before if isinstance(before, dict) else {}
    if differ := [key for key, value in budget.items() if before.get(key) != value]:
        raise InputError(f"{path}: was begun with other {', '.join(differ)}; remove it or change --out")
    load_weights(model, state, path)
    optimizer.load_state_dict(state["optimizer"])
    print(f"{path}: goes on after {state['step']} updates", flush=True)
    return int(state["step"])


@dataclass
class Refined:
    """Results with redrawn masks.

    Attributes:
        entries: every one in its place.
        seconds: that they took without reading images.
        left: entries that stay as they are because of their image, and why.
    """

    entries: list[Entry]
    seconds: float = 0.0
    left: Problems = field(default_factory=Problems)


def refine(
    model: BPR,
    entries: list[Entry],
    checked: Sequence[CheckedDetection],
    truth: GroundTruth,
    images: Sequence[ImageFile],
    journal: Journal,
) -> Refined:
    """Redraw the masks on all images that the journal has not; what is done is written down image by image.

    Args:
        model: in evaluation mode.
        entries: of the results, as they are.
        checked: the same entries with compressed masks, from :func:`eval.checks.check_detections`.
        truth: whose images they are on.
        images: that have entries.
        journal: of this work.
    """
    refined = Refined(list(entries))
    for image in tqdm(images, desc="refinement", unit="image", disable=None):
        name, masks = image.name, [checked[index]["segmentation"] for index in image.entries]
        if error := journal.attempt(name, partial(_redrawn, model, image, masks, truth)):
            note_left(refined.left, image, error)
            continue
        record = journal.done[name]
        refined.seconds += record["seconds"]
        for index, mask in record["changed"].items():
            refined.entries[int(index)] = {**entries[int(index)], "segmentation": mask}
    return refined


def _redrawn(model: BPR, image: ImageFile, masks: list[Any], truth: GroundTruth) -> dict[str, Any]:
    """The masks of an image that changed, by entry, and the seconds from run lengths to run lengths: plain values."""
    pixels, _ = image.read(truth.sizes[image.id])
    begin = time.perf_counter()
    refined = model.refine(torch.from_numpy(pixels).permute(2, 0, 1), masks)
    seconds = time.perf_counter() - begin
    triples = zip(image.entries, masks, refined, strict=True)
    return {"seconds": seconds, "changed": {index: new for index, old, new in triples if new is not old}}


def load(path: str) -> BPR:
    """Load a trained BPR in evaluation mode; InputError where the file is none, or does not fit."""
    return model_of(Path(path), read_checkpoint(Path(path)))


def model_of(path: Path, state: dict[str, Any]) -> BPR:
    """The BPR of a checkpoint whose contents have been read, as :func:`load` gives it."""
    config = state["config"]
    if not isinstance(config, dict) or config.get("model") != NAME or not isinstance(config.get("bpr"), dict):
        raise InputError(f"{path}: is no checkpoint of bpr.py train")
    try:
        model = BPR(from_dict(BPRConfig, config["bpr"]))
    except InputError as error:
        raise InputError(f"{path}: its configuration does not fit this version ({error})") from error
    load_weights(model, state, path)
    return model.eval()
