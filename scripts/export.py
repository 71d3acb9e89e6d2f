"""Turn a trained anymask run into the file of weights that the package carries.

    python scripts/export.py --checkpoint runs/anymask_refine_coco --trained-on "my photographs, CC BY 4.0"
    # elsewhere, and with settings of the evolution that were chosen after training
    python scripts/export.py --checkpoint CKPT --out my_refiner.pt --trained-on TEXT \\
        --set sharpcontour.evolution.ratio=0.02
    # after a training that began from such a file, the mean of both, in which the former weights count 0.3
    python scripts/export.py --checkpoint CKPT --out my_refiner.pt --trained-on TEXT --mean-with former.pt 0.3

The file holds the network's weights in 16 bits, its configuration, and "about": how it was trained. It is loaded by
sharpcontour.load_refiner(FILE); without --out it takes the place of the package's own weights.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import change_refiner
from sharpcontour.errors import InputError
from sharpcontour.io.command_line import between
from sharpcontour.io.files import check_writable

if TYPE_CHECKING:
    from sharpcontour.refined_model import RefinedModel


def main() -> int:
    """Read the checkpoint, write the weights."""
    args = parse_arguments()
    from models.loading import find_checkpoint, predictor_of  # not before: --help needs no torch
    from sharpcontour.anymask.host import MaskHost
    from sharpcontour.anymask.refiner import WEIGHTS, save_refiner
    from sharpcontour.refined_model import RefinedModel

    out = args.out or WEIGHTS
    check_writable(out, (args.checkpoint, *args.mean_with[:1]))
    path, checkpoint = find_checkpoint(Path(args.checkpoint))
    check_writable(out, (path,))  # the newest of a folder
    model = predictor_of(path, checkpoint, "cpu").model
    if not isinstance(model, RefinedModel) or not isinstance(model.host, MaskHost):
        raise InputError(
            f"{path}: only --model anymask --refine can be exported; this is {checkpoint['config']['model']}"
        )
    change_refiner(model, args.overrides)
    former = take_mean(model, *args.mean_with) if args.mean_with else {}
    train = checkpoint["config"]["train"]
    about = {
        "trained_on": args.trained_on,
        "updates": checkpoint["step"],
        "images_per_update": train["images_per_batch"],
        "optimizer": f"{train['optimizer']}, rate {train['base_lr']}, {train['schedule']}",
        **former,
    }
    save_refiner(model, about, out)
    print(f"{out}: {Path(out).stat().st_size / 2**20:.1f} MiB, after {checkpoint['step']} updates")
    return 0


def take_mean(model: RefinedModel, path: str, share: float) -> dict[str, Any]:
    """Let a model have the mean of its own weights and a file's, which count ``share``; what is to be told of it."""
    from sharpcontour.anymask.refiner import load_refiner

    former, own = load_refiner(path), model.state_dict()
    theirs = former.model.state_dict()
    if {key: value.shape for key, value in own.items()} != {key: value.shape for key, value in theirs.items()}:
        raise InputError(f"{path}: is of another network than the checkpoint; take the file that it began from")
    for key, value in own.items():
        if value.is_floating_point():
            value.lerp_(theirs[key], share)
    return {"mean_with": {"share": share, **former.about}}


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="CKPT", help="of --model anymask --refine, or the folder of a run")
    add(
        "--trained-on",
        required=True,
        metavar="TEXT",
        help="what the images were and their terms; it is kept in the file",
    )
    add("--out", metavar="FILE", help="to write (default: the package's own weights)")
    add(
        "--mean-with",
        nargs=2,
        default=(),
        metavar=("FILE", "SHARE"),
        help="write the mean of the run's weights and those of FILE, which count SHARE, between 0 and 1",
    )
    _cli.add_refiner_set(parser)
    args = parser.parse_args()
    if not args.trained_on.strip():
        parser.error("argument --trained-on: tells nothing; say what the images were and their terms")
    if args.mean_with:
        try:
            args.mean_with[1] = between(0, 1, "not between 0 and 1")(args.mean_with[1])
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument --mean-with: {error}")
    return args


if __name__ == "__main__":
    _cli.run(main)
