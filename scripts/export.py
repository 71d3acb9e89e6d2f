"""Turn a trained anymask run into the file of weights that the package carries.

    python scripts/export.py --checkpoint runs/anymask_refine_coco --trained-on "my photographs, CC BY 4.0"
    # elsewhere, and with settings of the evolution that were chosen after training
    python scripts/export.py --checkpoint CKPT --out my_refiner.pt --trained-on TEXT \\
        --set sharpcontour.evolution.ratio=0.02

The file holds the network's weights in 16 bits, its configuration, and "about": how it was trained. It is loaded by
sharpcontour.load_refiner(FILE); without --out it takes the place of the package's own weights.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
from pathlib import Path

from engine.config import change_refiner
from sharpcontour.errors import InputError
from sharpcontour.io.files import check_writable


def main() -> int:
    """Read the checkpoint, write the weights."""
    args = parse_arguments()
    from models.loading import find_checkpoint, predictor_of  # not before: --help needs no torch
    from sharpcontour.anymask.host import MaskHost
    from sharpcontour.anymask.refiner import WEIGHTS, save_refiner
    from sharpcontour.refined_model import RefinedModel

    out = args.out or WEIGHTS
    check_writable(out, (args.checkpoint,))
    path, checkpoint = find_checkpoint(Path(args.checkpoint))
    model = predictor_of(path, checkpoint, "cpu").model
    if not isinstance(model, RefinedModel) or not isinstance(model.host, MaskHost):
        raise InputError(
            f"{path}: only --model anymask --refine can be exported; this is {checkpoint['config']['model']}"
        )
    change_refiner(model, args.overrides)
    train = checkpoint["config"]["train"]
    about = {
        "trained_on": args.trained_on,
        "updates": checkpoint["step"],
        "images_per_update": train["images_per_batch"],
        "optimizer": f"{train['optimizer']}, rate {train['base_lr']}, {train['schedule']}",
    }
    save_refiner(model, about, out)
    print(f"{out}: {Path(out).stat().st_size / 2**20:.1f} MiB, after {checkpoint['step']} updates")
    return 0


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
    _cli.add_refiner_set(parser)
    return parser.parse_args()


if __name__ == "__main__":
    _cli.run(main)
