"""Milliseconds from an image file to COCO run lengths, stage by stage, with and without SharpContour.

    python scripts/benchmark.py                             # every model at COCO's size, random weights
    python scripts/benchmark.py --models mask_rcnn --threads 1 --repeats 20 --json cost.json
    python scripts/benchmark.py --checkpoint runs/mask_rcnn_refine_shapes --image photo.jpg
    # refiners of given masks, BPR too, on the same detections
    python scripts/benchmark.py --refiners bpr.pt runs/RUN --results R.json --annotations GT.json --images DIR

Stages: load (decode the file, resize, copy to the device), host (network and suppression), trace (contours of soft
masks), evolve (3x3 convolution, controller, all iterations, do-no-harm), encode (to the size of the file, run lengths;
a mask host without the refiner pastes its masks here). All models and both configurations take turns image by image,
so that what else the machine does hits them all; the ratio of the totals is taken turn by turn. Totals are timed apart
from the stages.

With random weights what a model finds is noise, so its detections count but their places do not: boxes like COCO's
and drawn masks take their place, the same for both configurations.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
import copy
import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from engine.config import Config, apply_overrides
from models.zoo import MODELS, title_of
from sharpcontour.errors import InputError
from sharpcontour.io.device import choose_device
from sharpcontour.io.files import check_writable, save_results
from sharpcontour.io.images import read_image

if TYPE_CHECKING:  # --help needs no torch: what does is imported by the functions that use it
    import torch
    from torch import nn

    from eval.diagnostics.refiner_times import Refiner
    from eval.diagnostics.timing import Pipeline
    from models import Predictor


@dataclass
class Subject:
    """What is timed: a model by name with random weights, or a checkpoint."""

    model: str
    checkpoint: str = ""


def main() -> int:
    """All subjects in turns, then one table."""
    args = parse_arguments()
    if args.json:
        check_writable(args.json)
    import torch

    from eval.diagnostics.untrained import describe

    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    if args.refiners:
        compare_refiners(args, device)
        return 0
    subjects = [Subject("", path) for path in args.checkpoint or ()] or [
        Subject(name) for name in args.models or detectors()
    ]
    data = read_file(args)
    results, varied = measure(subjects, data, device, args)
    print(f"{describe(device)}; {args.repeats} turns after {args.warmup}; milliseconds, medians")
    print(table(results))
    for setting, times in varied.items():
        print(f"{setting or 'as it is':50} trace + evolve + encode {statistics.median(times):8.1f} ms")
    if args.json:
        save_results(
            {"device": describe(device), **_cli.speed_of(args), "results": results, "varied": varied}, args.json
        )
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults and units."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", nargs="+", choices=sorted(MODELS), help="detectors with random weights (default: all)")
    add("--checkpoint", nargs="+", metavar="CKPT", help="trained models instead; checkpoints or folders of runs")
    add("--image", metavar="FILE", help="image file (default: a drawn one of 800 x 480 pixels)")
    add("--instances", type=int, default=100, metavar="K", help="detections with random weights (default: 100)")
    add("--repeats", type=int, default=10, metavar="N", help="turns that count (default: 10)")
    add("--warmup", type=int, default=2, metavar="N", help="turns before these (default: 2)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    _cli.add_device(parser)
    _cli.add_speed(parser)
    add(
        "--vary",
        nargs="+",
        metavar="KEY=VALUE",
        default=[],
        help="also time the refiner of the first model with each of these settings, e.g. "
        "sharpcontour.evolution.max_steps=20",
    )
    add("--refiners", nargs="+", metavar="CKPT", help="time these on the detections of --results instead")
    for name, what in (("results", "COCO results"), ("annotations", "annotations"), ("images", "folder of images")):
        add(f"--{name}", metavar="DIR" if name == "images" else "FILE", help=f"{what}, with --refiners")
    add("--count", type=int, default=20, metavar="N", help="images with detections, with --refiners (default: 20)")
    add("--json", metavar="OUT", help="write all numbers to this file")
    args = parser.parse_args()
    files = (args.results, args.annotations, args.images)
    if (any(files) or bool(args.refiners)) and not (all(files) and args.refiners):
        raise InputError("--refiners, --results, --annotations and --images go together")
    if args.refiners and (args.models or args.checkpoint or args.image or args.vary):
        raise InputError("--models, --checkpoint, --image and --vary mean nothing to --refiners; leave them out")
    for name in ("instances", "repeats", "count"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} must be 1 or more")
    if (args.vary or args.refiners) and _cli.is_faster(args):
        raise InputError("--amp, --channels-last and --tf32 are for the table of models, without --vary and --refiners")
    if args.warmup < 0 or (args.threads is not None and args.threads < 1):
        raise InputError("--warmup must be 0 or more, --threads 1 or more")
    for name in args.models or ():
        if name not in detectors():
            raise InputError(f"--models {name}: detects nothing; choose of {', '.join(detectors())}")
    return args


def compare_refiners(args: argparse.Namespace, device: torch.device) -> None:
    """Time refiners of given masks, print a line for each, and write the numbers."""
    from eval.diagnostics.refiner_times import read_samples, time_refiners
    from eval.diagnostics.untrained import describe

    refiners = {path: refiner_of(path, device) for path in args.refiners}
    samples = read_samples(args.results, args.annotations, args.images, args.count)
    if not samples:
        raise InputError(f"{args.results}: has no detections")
    with tqdm(total=args.warmup + args.repeats, desc="time", unit="turn", disable=None) as bar:
        found = time_refiners(refiners, samples, device, args.warmup, args.repeats, bar.update)
    masks = sum(len(sample[1]) for sample in samples)
    where = f"{describe(device)}; {len(samples)} images with {masks} masks; medians of {args.repeats} turns"
    if args.json:
        save_results({"device": where, "refiners": found}, args.json)
    print(where)
    for path, cost in found.items():
        print(f"{cost['ms']:9.1f} ms an image {cost['parameters'] / 1e6:8.2f} M parameters  {path}")


def refiner_of(path: str, device: torch.device) -> Refiner:
    """The refiner of a checkpoint: BPR's, or of a refined model."""
    import torch

    from engine import bpr
    from models import load_model
    from models.loading import find_checkpoint

    file, state = find_checkpoint(Path(path))
    if state["config"].get("model") == bpr.NAME:
        network = bpr.model_of(file, state).to(device)
        return lambda sample: network.refine(torch.from_numpy(sample[0]).permute(2, 0, 1), sample[1]), network
    predictor = load_model(path, device)
    return lambda sample: predictor.refine(*sample).to_coco(0), predictor.model


def detectors() -> list[str]:
    """The models that find objects by themselves."""
    return sorted(name for name in MODELS if MODELS[name].finds)


def read_file(args: argparse.Namespace) -> bytes:
    """The bytes of an image file."""
    if args.image:
        read_image(args.image)  # tells at once where it cannot be read
        return Path(args.image).read_bytes()
    from eval.diagnostics.untrained import drawn_file

    return drawn_file()


def measure(
    subjects: list[Subject], data: bytes, device: torch.device, args: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    """Times, parameters and memory of every subject in both configurations; and see :func:`vary`."""
    from torch import nn

    from eval.diagnostics.timing import time_pipelines
    from models.speed import faster

    built = [build(subject, data, device, args.instances) for subject in subjects]
    runs = {
        str(k): pipeline(predictor, subject, args.instances)
        for k, (subject, (predictor, _)) in enumerate(zip(subjects, built, strict=True))
    }
    speed = _cli.speed_of(args)
    with (
        faster(nn.ModuleList(predictor.model for predictor, _ in built), device, **speed),
        tqdm(total=2 * (args.warmup + args.repeats), desc="time", unit="turn", disable=None) as bar,
    ):
        timings = time_pipelines(runs, data, args.warmup, args.repeats, bar.update)
    parameters = [
        {"host": count(predictor.model.host), "refiner": count(predictor.model.refiner)}  # type: ignore[arg-type]
        for predictor, _ in built
    ]
    varied = vary(runs["0"], data, args) if args.vary else {}
    names = [name for _, name in built]
    del built, runs
    results = []
    for k, subject in enumerate(tqdm(subjects, desc="memory", unit="model", disable=None)):
        memory = {kind: peak_memory(subject, data, device, args.instances, kind, speed) for kind in ("host", "refined")}
        results.append(
            {"model": names[k], "parameters": parameters[k], "memory_mib": memory, **asdict(timings[str(k)])}
        )
    return results, varied


def vary(run: Pipeline, data: bytes, args: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of trace, evolve and encode as the refiner is ("") and with each setting of --vary."""
    from eval.diagnostics.timing import time_settings

    settings = {"": run.model.refiner.config}
    for assignment in args.vary:
        settings[assignment] = copy.deepcopy(run.model.refiner.config)
        apply_overrides(Config("", run.model.host.config, True, settings[assignment]), [assignment])
    with tqdm(total=args.warmup + args.repeats, desc="settings", unit="turn", disable=None) as bar:
        return time_settings(run, settings, data, args.warmup, args.repeats, bar.update)


def build(subject: Subject, data: bytes, device: torch.device, instances: int) -> tuple[Predictor, str]:
    """The refined model of a subject, and its name in the table."""
    from eval.diagnostics.untrained import untrained
    from models import load_model
    from sharpcontour.refined_model import RefinedModel

    if subject.checkpoint:
        predictor = load_model(subject.checkpoint, device)
        name = title_of(predictor.config["model"])
        if not isinstance(predictor.model, RefinedModel):
            raise InputError(f"{subject.checkpoint}: this checkpoint has no refiner; train with --refine")
        return predictor, name
    return untrained(subject.model, data, device, instances), title_of(subject.model)


def pipeline(predictor: Predictor, subject: Subject, instances: int) -> Pipeline:
    """From file to run lengths; with random weights the detections are moved to drawn places."""
    from eval.diagnostics.timing import Pipeline, drawn_instances

    return Pipeline(predictor, None if subject.checkpoint else drawn_instances(instances))


def count(module: nn.Module) -> int:
    """The number of parameters of a module, frozen ones included."""
    return sum(parameter.numel() for parameter in module.parameters())


def peak_memory(
    subject: Subject, data: bytes, device: torch.device, instances: int, kind: str, speed: dict[str, Any]
) -> float:
    """Peak memory in MiB of a fresh process that does nothing else: allocated on a GPU, else of the process.

    Where the system does not tell (Windows): 0.
    """
    import torch

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, subject, data, str(device), instances, kind, speed, torch.get_num_threads()).result()


def _peak(
    subject: Subject, data: bytes, device_name: str, instances: int, kind: str, speed: dict[str, Any], threads: int
) -> float:
    import torch

    from engine.logging import memory_gib
    from models.speed import faster

    torch.set_num_threads(threads)
    device = torch.device(device_name)
    predictor, _ = build(subject, data, device, instances)
    if kind == "host":
        del predictor.model.refiner
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    run = pipeline(predictor, subject, instances)
    with faster(predictor.model, device, **speed):
        for _ in range(2):
            run(data, refine=kind == "refined")
    status = Path("/proc/self/status")
    if device.type != "cuda" and status.exists():
        # getrusage would count the parent too, whose memory a new process has for a moment.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return memory_gib(device) * 2**10


def table(results: list[dict[str, Any]]) -> str:
    """Two lines for each subject: the host, and the host with SharpContour."""
    from eval.diagnostics.timing import Timings

    stages = Timings.stages
    head = (
        f"{'':18}"
        + "".join(f"{stage:>9}" for stage in stages)
        + f"{'total':>9}{'ratio':>20}{'params':>10}{'memory':>11}"
    )
    lines = [head]
    for result in results:
        low, middle, high = result["ratio"]
        sizes = result["parameters"]
        for kind, title in (("host", result["model"]), ("refined", "  + SharpContour")):
            cells = "".join(f"{result[kind][stage]:>9.1f}" for stage in (*stages, "total"))
            ratio = f"{middle:.3f} ({low:.3f}-{high:.3f})" if kind == "refined" else ""
            size = sizes["host"] + (sizes["refiner"] if kind == "refined" else 0)
            memory = f"{result['memory_mib'][kind]:.0f} MiB" if result["memory_mib"][kind] else "not told"
            lines.append(f"{title:18}{cells}{ratio:>20}{size / 1e6:>8.1f} M{memory:>11}")
    return "\n".join(lines)


if __name__ == "__main__":
    _cli.run(main)
