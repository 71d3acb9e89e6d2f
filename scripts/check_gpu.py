"""Whether a GPU computes what the CPU does, how fast it is, and what waits for it: some minutes on one GPU.

    python scripts/check_gpu.py --json results/gpu.json        # all parts
    python scripts/check_gpu.py --parts parity waits            # some of them

parity: every model with and without SharpContour, losses, gradients and detections in float32 against the CPU, once
with and once without TF32. amp: 50 updates in bf16 and fp16, which must learn. commands: a step behind DDP in a group
of one process, training by torchrun, going on from a checkpoint, evaluation and refinement of a results file. waits:
the evolution while torch forbids every wait for the device. times: host and refiner by stage at 1 to 300 instances, a
training step of Mask R-CNN R50 beside torchvision's, and how many drawn images the loader gives. What has been found is
written after every part; the command ends with status 1 if anything failed.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
import math
import time
import traceback
from typing import Any

from models.zoo import MODELS
from sharpcontour.errors import InputError
from sharpcontour.io.files import check_writable, save_results

PARTS = ("parity", "waits", "amp", "commands", "times")


def main() -> int:
    """Run the parts one after the other, and tell what failed."""
    args = parse_arguments()
    if args.json:
        check_writable(args.json)
    from eval.diagnostics import device_check
    from eval.diagnostics.untrained import describe
    from sharpcontour.io.device import choose_device

    device = choose_device(args.device)
    calls = {
        "parity": lambda: device_check.parity(device, args.models or list(MODELS)),
        "waits": lambda: device_check.waits(device),
        "amp": lambda: device_check.amp(device),
        "commands": lambda: device_check.commands(device),
        "times": lambda: device_check.times(device, args.repeats),
    }
    found: dict[str, Any] = {"device": describe(device), "failed": []}
    for name in args.parts:
        begin = time.perf_counter()
        try:
            found[name], failed = calls[name]()
        except Exception as error:  # one part that breaks must not hide what the others find
            found[name], failed = traceback.format_exc(), [f"{type(error).__name__}: {error}"]
        found["failed"] += [f"{name}: {line}" for line in failed]
        print(f"{name}: {time.perf_counter() - begin:.0f} s; " + ("; ".join(failed) or "all well"), flush=True)
        if args.json:
            save_results(finite(found), args.json)
    return 1 if found["failed"] else 0


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", default="cuda", help="default: cuda; cpu compares the CPU with itself, to try the command")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    add("--models", nargs="+", choices=tuple(MODELS), help="for parity (default: all)")
    add("--repeats", type=int, default=10, metavar="N", help="turns of a timing (default: 10)")
    add("--json", metavar="OUT", help="write all numbers to this file")
    args = parser.parse_args()
    if args.repeats < 1:
        raise InputError("--repeats must be 1 or more")
    return args


def finite(value: Any) -> Any:
    """The same with numbers that JSON does not have as text: they are what this command looks for."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    _cli.run(main)
