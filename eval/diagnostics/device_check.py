"""The parts of ``scripts/check_gpu.py``: what a device computes, what waits for it, and how fast it is.

Every part returns what it has found as plain values, and what failed in lines.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.detection import maskrcnn_resnet50_fpn

from data import DataConfig, build_dataset
from eval.commands import command_line
from eval.diagnostics.parity import SIZE, compare_devices, drawn_batch
from eval.diagnostics.timing import Pipeline, drawn_instances, take_turns, time_pipelines
from eval.diagnostics.untrained import CLASSES, drawn_file, untrained
from models.zoo import MODELS, build_model, host_class
from sharpcontour.config import SharpContourConfig
from sharpcontour.errors import InputError
from sharpcontour.loss import total_loss

LIMITS = {"loss": 1e-3, "gradient": 1e-2, "count": 1.0, "score": 1e-3, "box": 0.1, "iou": 0.02}
TF32_LIMITS = {"loss": 0.1, "gradient": 0.3}  # of near-equal scores others are kept: detections are only told
UPDATES = 50  # of the trainings in mixed precision
COUNTS = (1, 10, 100, 300)  # instances that are timed
SIDE = 1024  # px, of the images of the timed training step: about as many pixels as 800 x 1333
SECONDS = 600  # that a command may take

Outcome = tuple[dict[str, Any], list[str]]
"""What a part has found, and what failed."""


def parity(device: torch.device, models: Sequence[str]) -> Outcome:
    """Differences between the devices by model, without and with TF32."""
    found: dict[str, Any] = {}
    failed = []
    usual = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for tf32, limits in ((False, LIMITS), (True, TF32_LIMITS)):
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
            for name in models:
                for refine in (False, True) if MODELS[name].finds else (True,):
                    title = f"{name}{' + SharpContour' if refine else ''}{', TF32' if tf32 else ''}"
                    found[title] = compare_devices(name, refine, device)
                    far = [
                        f"{key} {v:.2g}" for key, v in found[title].items() if key in limits and not v <= limits[key]
                    ]
                    failed += [f"{title}: {', '.join(far)}"] if far else []
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = usual
    return found, failed


def amp(device: torch.device) -> Outcome:
    """Losses of the first and the last updates in mixed precision."""
    found: dict[str, Any] = {}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for model in ("mask_rcnn", "condinst"):
            for kind in ("bf16", "fp16"):
                out = Path(folder) / f"{model}_{kind}"
                script("train", *training(model, out, device, UPDATES, f"train.amp={kind}"))
                losses = logged(out)
                found[f"{model} {kind}"] = losses
                if not losses[-1] < losses[0]:
                    failed.append(f"{model} {kind}: the loss went from {losses[0]:.3g} to {losses[-1]:.3g}")
    return found, failed


def commands(device: torch.device) -> Outcome:
    """Seconds of a training by torchrun, of going on with it, of evaluation and of refinement."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        run, root, results = Path(folder) / "run", Path(folder) / "data", Path(folder) / "r.json"

        def step(name: str, *command: str, processes: int = 0) -> None:
            begin = time.perf_counter()
            script(*command, processes=processes)
            found[name] = time.perf_counter() - begin

        begin = time.perf_counter()
        distributed_step(device)
        found["step of one process in a group"] = time.perf_counter() - begin
        step("train", "train", *training("mask_rcnn", run, device, 20), processes=1)
        step("go on", "train", *training("mask_rcnn", run, device, 30), processes=1)
        on = ("--device", device.type)
        step("evaluate", "evaluate", "--checkpoint", str(run), *on)
        step("prepare", "prepare_data", "shapes", "--root", str(root), "--train-count", "1", "--val-count", "8")
        files = ("--images", str(root / "val2017"), "--annotations", str(root / "annotations/instances_val2017.json"))
        own = ("--val-json", files[3], "--val-images", files[1])
        step("predict", "evaluate", "--checkpoint", str(run), *on, *own, "--results-out", str(results))
        refined = str(Path(folder) / "r2.json")
        step("refine", "refine", "--checkpoint", str(run), *on, "--results", str(results), *files, "--out", refined)
    return found, []


def distributed_step(device: torch.device) -> None:
    """A training step behind DistributedDataParallel in a group of one process: NCCL on a GPU, else gloo."""
    model: Any = build_model(host_class("mask_rcnn").small(), CLASSES, SharpContourConfig()).to(device).train()
    images, targets = drawn_batch(model, SIZE)
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            parallel = DistributedDataParallel(model, [device.index or 0] if device.type == "cuda" else None)
            total_loss(parallel(images, targets)).backward()
        finally:
            dist.destroy_process_group()


def waits(device: torch.device) -> Outcome:
    """The evolution of 100 instances while torch forbids waiting for the device."""
    run, data = timed(device, 100)
    _, inputs, _ = run.begin(data)
    refiner = run.model.refiner
    inputs.contours = refiner.initial_contours(inputs)
    with torch.inference_mode():
        refiner.refine(inputs)
        if device.type != "cuda":
            return {"evolution": "nothing to wait for"}, []
        torch.cuda.set_sync_debug_mode("error")
        try:
            refiner.refine(inputs)
        except RuntimeError as error:
            return {"evolution": str(error)}, [f"the evolution waits for the device: {str(error).splitlines()[0]}"]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {"evolution": "no wait"}, []


def times(device: torch.device, repeats: int) -> Outcome:
    """Milliseconds by stage, of training steps, and images a second of the loader."""
    found: dict[str, Any] = {"stages": {}}
    for count in COUNTS:
        run, data = timed(device, count)
        found["stages"][str(count)] = asdict(time_pipelines({"it": run}, data, 2, repeats)["it"])
    steps: dict[str, Callable[[], object]] = {"ours": our_step(device), "torchvision": torchvisions_step(device)}
    turns = take_turns(steps, device, 3, repeats)
    found["training step"] = {name: statistics.median(values) for name, values in turns.items()}
    dataset = build_dataset(DataConfig(name="shapes"), "train")
    loader = iter(
        torch.utils.data.DataLoader(Drawn(dataset), batch_size=None, num_workers=8, multiprocessing_context="spawn")
    )
    next(loader)  # the workers have started
    begin = time.perf_counter()
    found["drawn images a second"] = sum(1 for _ in loader) / (time.perf_counter() - begin)
    return found, []


class Drawn(torch.utils.data.Dataset[Any]):
    """Some drawn training images, by number."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> Any:
        return self.dataset[0, index]["image"]


def timed(device: torch.device, instances: int) -> tuple[Pipeline, bytes]:
    """Mask R-CNN R50 at COCO's size with random weights and drawn instances, and the bytes of an image."""
    data = drawn_file()
    return Pipeline(untrained("mask_rcnn", data, device, instances), drawn_instances(instances)), data


def our_step(device: torch.device) -> Callable[[], None]:
    """A training step of Mask R-CNN R50 on two drawn images."""
    config = host_class("mask_rcnn").config_type()
    config.backbone.weights, config.backbone.norm = "none", "bn"  # as torchvision's without weights
    model: Any = build_model(config, CLASSES).to(device).train()
    images, targets = drawn_batch(model, SIDE)
    return step_of(model, lambda: model(images, targets))


def torchvisions_step(device: torch.device) -> Callable[[], None]:
    """The same of torchvision's."""
    size = {"min_size": SIDE, "max_size": SIDE}
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES + 1, **size)
    model.to(device).train()
    pixels, found = drawn_batch(model, SIDE)
    images = [image / 255 for image in pixels]
    targets = [
        {
            "boxes": target["boxes"],
            "labels": target["labels"] + 1,
            "masks": target["masks"].dense(*target["size"]).to(torch.uint8),
        }
        for target in found
    ]
    return step_of(model, lambda: model(images, targets))


def step_of(model: torch.nn.Module, losses: Callable[[], dict[str, torch.Tensor]]) -> Callable[[], None]:
    """Forward pass, backward pass and update."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        total_loss(losses()).backward()
        optimizer.step()

    return step


def training(model: str, out: Path, device: torch.device, updates: int, *settings: str) -> list[str]:
    """Arguments of train.py for a short training on drawn shapes."""
    usual = (
        f"train.iterations={updates}",
        "train.log_period=5",
        "train.warmup_iterations=5",
        "data.val_images_count=8",
    )
    chosen = [*usual, f"train.device={device.type}", "train.checkpoint_period=10", *settings]
    return ["--model", model, "--refine", "--recipe", "shapes", "--out", str(out), "--set", *chosen]


def script(name: str, *arguments: str, processes: int = 0) -> None:
    """Run one of the project's commands, by torchrun where ``processes`` says so; InputError where it fails."""
    command = command_line(f"scripts/{name}.py", *arguments, processes=processes)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode:
        raise InputError(f"{name}.py ended with exit code {done.returncode}: {done.stderr[-500:]}")


def logged(run: Path) -> list[float]:
    """The losses that a training has logged."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]
