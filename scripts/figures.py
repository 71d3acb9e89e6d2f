"""Figures 1, 4 and 5 of the paper from trained models, how far phi can be trusted, and the method in pictures.

    python scripts/figures.py --before-after runs/mask_rcnn_refine_shapes --out figure4.png
    python scripts/figures.py --two runs/refinemask_shapes runs/mask_rcnn_refine_shapes --out figure5.png
    python scripts/figures.py --calibration runs/mask_rcnn_refine_shapes OTHER_RUN --out calibration.png
    python scripts/figures.py --paper docs/paper

The first two rank every validation object that both masks found (detections of a score of at least 0.3, IoU of at least
0.5) by the gain of the second in Boundary IoU, and show those with the largest gain, those in the middle of the
ranking, and those with the largest loss. White is the annotation. The third asks refiners beside the boundary of every
validation object: of the points that phi calls outside with some probability, how many are; and how sure phi is by the
distance from the boundary. The last one needs no trained run: it draws section 3.1 of the paper, step by step, with the
refiner of the package on the photograph of this repository.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import DataConfig, build_dataset
from eval.pictures.pairs import FOUND, Pair, choose, find_pairs, sheet
from models.zoo import title_of
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.io.device import choose_device
from sharpcontour.io.files import check_writable
from sharpcontour.io.plain import from_dict
from sharpcontour.pictures import drawing

if TYPE_CHECKING:  # --help needs no torch: what does is imported by the functions that use it
    from models import Predictor

SCORE = 0.3  # of detections, at least


def main() -> int:
    """Collect all objects, choose, draw."""
    args = parse_arguments()
    if args.paper is not None:
        if args.out is not None:
            raise InputError("--paper DIR is the folder to write to; leave out --out")
        return paper(Path(args.paper))
    if args.out is None:
        raise InputError("--out PNG is missing, the picture to write")
    if min(args.count, args.images) < 1:
        raise InputError("--count and --images must be 1 or more")
    check_writable(args.out)
    from models import load_model

    device = choose_device(args.device)
    models = [load_model(path, device) for path in (args.calibration or args.two or [args.before_after])]
    if args.calibration:
        return calibration(args, models)
    if not args.two and not models[0].config["refine"]:
        raise InputError(f"{args.before_after}: has no refiner; --before-after needs a model trained with --refine")
    names = [title(model, refined=bool(args.two)) for model in models]
    if not args.two:
        names.append(f"{names[0]} + SharpContour")
    pairs = collect(models, args.images)
    if not pairs:
        raise InputError(f"no validation object was found by both masks (score {SCORE}, IoU {FOUND}); train longer")
    drawing.save(args.out, sheet(choose(pairs, args.count), (names[0], names[1])))
    gains = sorted(pair.gain for pair in pairs)
    better = sum(gain > 0 for gain in gains) / len(gains)
    print(
        f"{args.out}: {len(pairs)} objects, Boundary IoU {100 * sum(p.ious[0] for p in pairs) / len(pairs):.1f} -> "
        f"{100 * sum(p.ious[1] for p in pairs) / len(pairs):.1f} on average, better on {100 * better:.0f} % of them; "
        f"gains from {100 * gains[0]:+.1f} over {100 * gains[len(gains) // 2]:+.1f} (median) to {100 * gains[-1]:+.1f}"
    )
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--before-after", metavar="CKPT", help="a refined model: its coarse masks and the refined ones")
    what.add_argument("--two", nargs=2, metavar="CKPT", help="two models, the left one and the right one")
    what.add_argument("--calibration", nargs="+", metavar="CKPT", help="refined models, four at most")
    what.add_argument("--paper", metavar="DIR", help="normals.jpg, profiles.jpg, march.jpg and freezing.jpg, into DIR")
    add = parser.add_argument
    add("--out", metavar="PNG", help="picture to write; all but --paper need it")
    add("--count", type=int, default=3, metavar="N", help="objects in a row, but for --paper (default: 3)")
    add(
        "--images",
        type=int,
        default=200,
        metavar="N",
        help="validation images looked at, but for --paper (default: 200)",
    )
    _cli.add_device(parser)
    return parser.parse_args()


def calibration(args: argparse.Namespace, models: list[Predictor]) -> int:
    """Ask every model beside the boundaries of its validation objects, and draw what they say."""
    from eval.diagnostics.probe import Probe, objects_inputs, probe
    from eval.pictures.calibration import COLOURS, draw
    from sharpcontour.refined_model import RefinedModel

    if len(models) > len(COLOURS):
        raise InputError(f"--calibration: at most {len(COLOURS)} models fit into a picture")
    probes: dict[str, Probe] = {}
    short = ["/".join(Path(path).parts[-2:]) for path in args.calibration]
    if len(set(args.calibration)) < len(short):
        raise InputError("--calibration: a model is named twice")
    for path, model in zip(args.calibration, models, strict=True):
        if not isinstance(model.model, RefinedModel) or not model.finds:
            raise InputError(f"{path}: --calibration needs a detector that was trained with --refine")
        parts = []
        for sample in samples(model, args.images):
            masks = list(sample["target"]["masks"].dense(*sample["target"]["size"]).numpy())
            if masks:
                image = sample["image"].to(next(model.model.parameters()).device)
                inputs = objects_inputs(model.model, image, sample["target"]["boxes"])
                parts.append(probe(model.model, inputs, masks))
        found = Probe.join(parts)
        probes[path if len(set(short)) < len(short) else short[len(probes)]] = found
        sharp = ", ".join(f"{value:.3f} at {distance} px" for distance, value in found.sharpness().items())
        print(f"{path}: {len(found.phi)} points; mean |phi - 0.5| {sharp}")
    drawing.save(args.out, draw(probes))
    print(args.out)
    return 0


def paper(folder: Path) -> int:
    """Draw the evolution of a contour that is too large here and too small there, by the paper's settings.

    It is what the package's refiner makes of the rough mask of the cup, bent at random.
    """
    import numpy as np

    from data.degrade import degrade
    from eval.diagnostics.follow import follow
    from eval.pictures.method import PICTURES, draw_method
    from sharpcontour.anymask.refiner import load_refiner
    from sharpcontour.config import EvolutionConfig
    from sharpcontour.io.images import read_image

    for name in PICTURES:
        check_writable(folder / name)
    photo, rough = (read_image(_cli.ROOT / "docs" / name) for name in ("coffee.jpg", "cup.png"))
    refiner = load_refiner()
    sharp = refiner.refine(photo, [rough[..., 0] > 0]).masks()[0]
    bent = degrade(sharp, "warped", 1.5, np.random.default_rng(0))
    for path in draw_method(follow(refiner, photo, bent, EvolutionConfig()), folder):
        print(path)
    return 0


def samples(model: Predictor, count: int) -> Iterator[Any]:
    """The first validation images of a model at test size, with their objects."""
    from eval.diagnostics.samples import annotated_samples

    config = from_dict(DataConfig, model.config["data"], "data.")
    return annotated_samples(build_dataset(config.at_test_size(), "val"), count, "objects")


def title(model: Predictor, refined: bool) -> str:
    """How a model is called in a figure."""
    name = title_of(model.config["model"])
    return f"{name} + SharpContour" if refined and model.config["refine"] else name


def collect(models: list[Predictor], count: int) -> list[Pair]:
    """All objects of the first model's validation images that both found."""
    import torch

    pairs: list[Pair] = []
    for sample in samples(models[0], count):
        image = sample["image"]
        with torch.no_grad():
            found = [keep(model.model([image.to(next(model.model.parameters()).device)])[0]) for model in models]
        first = found[0].coarse if len(found) == 1 else found[0]
        assert first is not None
        pixels = image.round().byte().permute(1, 2, 0).numpy()
        pairs += find_pairs(pixels, first, found[-1], sample["target"]["rings"])
    return pairs


def keep(found: Detections) -> Detections:
    """The detections with a score that counts; they come with the best first."""
    count = int((found.scores >= SCORE).sum())

    def part(one: Detections) -> Detections:
        return Detections(one.boxes[:count], one.scores[:count], one.labels[:count], one.shapes[:count], one.size)

    shown = part(found)
    shown.coarse = None if found.coarse is None else part(found.coarse)
    return shown


if __name__ == "__main__":
    _cli.run(main)
