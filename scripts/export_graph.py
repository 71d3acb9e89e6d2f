"""Write a refiner as a graph that runs without this code: as ONNX, or as a file of torch.export.

    # the package's refiner of masks from anywhere; this needs the packages onnx and onnxscript
    python scripts/export_graph.py --onnx refiner.onnx
    # the refiner of a trained model, from the features of its host on
    python scripts/export_graph.py --checkpoint runs/mask_rcnn_refine_shapes --onnx refiner.onnx --torch refiner.pt2

A graph takes given contours and gives refined ones, for the number of vertices that the refiner was made for or that
--set sharpcontour.evolution.vertices=N says. docs/graphs.md tells what goes in and what stays outside.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import change_refiner
from sharpcontour.errors import InputError
from sharpcontour.io.files import check_writable

if TYPE_CHECKING:  # --help needs no torch
    from torch import nn


def main() -> int:
    """Load, trace, write."""
    args = parse_arguments()
    if args.onnx is None and args.torch is None:
        raise InputError("nothing to write; give --onnx FILE, --torch FILE, or both")
    from sharpcontour.anymask import graphs  # not before: --help needs no torch

    if args.onnx is not None:
        graphs.check_onnx()
    path, model = _model(args.checkpoint)
    if args.torch is not None:
        check_writable(args.torch, (path,))
    if args.onnx is not None:
        check_writable(args.onnx, (path, args.torch))
    change_refiner(model, args.overrides)
    graph = graphs.graph_of(model)
    print("tracing the graph; this may take a minute", flush=True)
    program = graphs.export_graph(graph)
    for name, (dtype, shape) in graph.axes.items():
        print(f"  {name}: {str(dtype).removeprefix('torch.')} ({', '.join(map(str, shape))})")
    if args.torch is not None:
        graphs.write_torch(program, args.torch)
    if args.onnx is not None:
        graphs.write_onnx(program, args.onnx, graph.axes)
    for path in filter(None, (args.torch, args.onnx)):
        print(f"{path}: {Path(path).stat().st_size / 2**20:.1f} MiB")
    return 0


def _model(checkpoint: str | None) -> tuple[Path | None, nn.Module]:
    """The model, and the file that it was read from, where that is not the package's."""
    if checkpoint is None:
        from sharpcontour.anymask.refiner import load_refiner

        return None, load_refiner().model
    from models.loading import find_checkpoint, predictor_of

    path, state = find_checkpoint(Path(checkpoint))
    return path, predictor_of(path, state, "cpu").model


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    whose = "of a refined model, or the folder of a run (default: the package's refiner of masks from anywhere)"
    add("--checkpoint", metavar="CKPT", help=whose)
    add("--onnx", metavar="FILE", help="to write: ONNX, with all weights in it")
    add("--torch", metavar="FILE", help="to write: what torch.export.load reads")
    _cli.add_refiner_set(parser)
    return parser.parse_args()


if __name__ == "__main__":
    _cli.run(main)
