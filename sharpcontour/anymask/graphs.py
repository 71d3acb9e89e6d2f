"""A refiner as a graph that runs without this code: for ``torch.export``, and as ONNX made of that.

A graph leads from given contours of N vertices to the refined ones: networks, phi, and all iterations of section 3.1.
What depends on the data step by step stays outside, in OpenCV and numpy: masks become contours
(:mod:`sharpcontour.contours.tracing`) and maps of signed distances (:mod:`sharpcontour.anymask.windows`) before it;
after it, refined contours that did harm are put back (:mod:`sharpcontour.contours.harmless`).

Shapes: K instances, R rings, N vertices, B images. N is fixed when a graph is made; K, R, B and the sizes of maps and
images may be any from 1 on. All inputs are contiguous tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from sharpcontour.anymask.host import MaskHost, Windows
from sharpcontour.anymask.in_windows import AT_ONCE_ON_CPU, Part, parts_of
from sharpcontour.anymask.network import DISTANCE_CELLS, SIDE
from sharpcontour.anymask.refiner import MaskRefiner, read_given
from sharpcontour.contours.types import Contours
from sharpcontour.errors import InputError
from sharpcontour.host import RefinerInputs
from sharpcontour.io.files import write_whole
from sharpcontour.refined_model import RefinedModel
from sharpcontour.refiner import SharpContour

OPSET = 20  # of ONNX; GridSample is there from 16 on
OUTPUT = "refined"  # name of the output in ONNX
BLOCK = 32  # px, what height and width of a graph's image are multiples of
LEAST_BLOCKS = 2  # along a side: where the coarsest map had a single cell, tracing would make that the rule
_NEEDED = ("onnx", "onnxscript")

Axes: TypeAlias = dict[str, tuple[torch.dtype, tuple[int | str, ...]]]
"""Type and shape of every input of a graph, by its name; a text names a size that may be any."""


class RefinerGraph(nn.Module):
    """The refiner behind a host model, from the host's features on.

    Args:
        model: its host detects objects by itself; in evaluation mode, on the CPU.

    Attributes:
        axes: type and shape of every input.
        stride: of the host's highest-resolution feature map in network-input pixels.
    """

    def __init__(self, model: RefinedModel) -> None:
        super().__init__()
        self.refiner, host = model.refiner, model.host
        with torch.no_grad():
            encoded = host.encode([torch.zeros(3, 64, 64)])
            self.stride: int = host.describe(encoded, [torch.tensor([[8.0, 8.0, 40.0, 40.0]])]).stride
        self.axes: Axes = {
            "fine": (torch.float32, ("B", host.fine_channels, "h", "w")),
            "boxes": (torch.float32, ("K", 4)),
            "image_index": (torch.int64, ("K",)),
            "feats": (torch.float32, ("K", *host.controller_shape)),
            "sizes": (torch.float32, ("B", 2)),
            **_ring_axes(self.refiner),
        }
        if host.context_channels:
            self.axes["context"] = (torch.float32, ("B", host.context_channels, "h_context", "w_context"))

    def forward(
        self,
        fine: Tensor,
        boxes: Tensor,
        image_index: Tensor,
        feats: Tensor,
        sizes: Tensor,
        contours: Tensor,
        instance: Tensor,
        hole: Tensor,
        context: Tensor | None = None,
    ) -> Tensor:
        """Refined contours (R, N, 2) in network-input pixels.

        Args:
            fine, boxes, image_index, feats, context: see :class:`~sharpcontour.host.RefinerInputs`.
            sizes: (B, 2) float32, height and width of each image before padding.
            contours: (R, N, 2) float32 x, y in network-input pixels.
            instance: (R,) int64, the instance 0 to K - 1 of each ring.
            hole: (R,) bool, whether each ring bounds a hole.
        """
        given = Contours(contours, instance, hole)
        inputs = RefinerInputs(fine, self.stride, boxes, image_index, feats, [], contours=given, context=context)
        limits = sizes.flip(-1)[image_index[instance]]
        return self.refiner.move(inputs, contours, hole, inputs.areas()[instance], limits).steps[-1]


class MaskRefinerGraph(nn.Module):
    """The refiner of masks from anywhere (AnyMask), with the networks that look at the image and the masks.

    :func:`window_inputs` makes its inputs of an image and masks.

    Args:
        model: its host is a :class:`~sharpcontour.anymask.host.MaskHost`; in evaluation mode, on the CPU.

    Attributes:
        axes: type and shape of every input.
    """

    def __init__(self, model: RefinedModel) -> None:
        super().__init__()
        self.host, self.refiner = model.host, model.refiner
        self.axes: Axes = {
            "image": (torch.float32, (1, 3, "height", "width")),
            "windows": (torch.float32, ("K", 4)),
            "boxes": (torch.float32, ("K", 4)),
            "distance": (torch.float32, ("K", DISTANCE_CELLS, DISTANCE_CELLS)),
            **_ring_axes(self.refiner),
        }

    def forward(
        self,
        image: Tensor,
        windows: Tensor,
        boxes: Tensor,
        distance: Tensor,
        contours: Tensor,
        instance: Tensor,
        hole: Tensor,
    ) -> Tensor:
        """Refined contours (R, N, 2) in pixels of the windows, each of which is 256 of them wide.

        Args:
            image: (1, 3, H, W) float32 RGB, 0 to 255; H and W are multiples of 32, 64 at least. What pads an
                image is the mean colour, ``AnyMaskConfig.pixel_mean``.
            windows: (K, 4) float32 xyxy in pixels of the image, squares around the masks; they may leave the image.
            boxes: (K, 4) float32 xyxy around the masks in pixels of the windows.
            distance: (K, 128, 128) float32, :func:`~sharpcontour.anymask.windows.distance_maps` of the masks.
            contours: (R, N, 2) float32 x, y in pixels of the windows.
            instance: (R,) int64, the mask 0 to K - 1 of each ring.
            hole: (R,) bool, whether each ring bounds a hole.
        """
        view = torch.zeros_like(windows[:, 0], dtype=torch.int64)
        features = self.host.image(self.host.normalised(image))
        inputs = self.host.seen(features, Windows(view, windows, boxes, distance))
        inputs.contours = Contours(contours, instance, hole)
        limits = torch.full_like(contours[:, 0], SIDE)
        return self.refiner.move(inputs, contours, hole, inputs.areas()[instance], limits).steps[-1]


def _ring_axes(refiner: SharpContour) -> Axes:
    vertices = refiner.config.evolution.vertices
    return {
        "contours": (torch.float32, ("R", vertices, 2)),
        "instance": (torch.int64, ("R",)),
        "hole": (torch.bool, ("R",)),
    }


def graph_of(model: nn.Module) -> RefinerGraph | MaskRefinerGraph:
    """The graph of a model's refiner.

    Args:
        model: a host with the refiner behind it, in evaluation mode, on the CPU.

    Raises:
        InputError: where it has no refiner.
    """
    if not isinstance(model, RefinedModel):
        raise InputError("this model has no refiner, and a graph is of the refiner; take one trained with --refine")
    return MaskRefinerGraph(model) if isinstance(model.host, MaskHost) else RefinerGraph(model)


def export_graph(graph: RefinerGraph | MaskRefinerGraph) -> ExportedProgram:
    """The graph as ``torch.export`` traces it; :func:`torch.export.save` and :func:`write_onnx` write it."""
    names = {name for _, shape in graph.axes.values() for name in shape if isinstance(name, str)}
    # Sizes of 0 and 1 would be taken for the only ones.
    sizes, sides = {name: 2 for name in names}, ("height", "width")
    dims = {name: Dim(name, min=LEAST_BLOCKS if name in sides else 1) for name in names}
    block = {name: BLOCK if name in sides else 1 for name in names}
    examples, dynamic = [], {}
    for key, (dtype, shape) in graph.axes.items():
        own = [size if isinstance(size, int) else block[size] * sizes[size] for size in shape]
        examples.append(torch.zeros(own, dtype=dtype))
        dynamic[key] = {i: block[s] * dims[s] for i, s in enumerate(shape) if isinstance(s, str)}
    with torch.enable_grad():  # without gradients phi is asked in parts, as many as there are points
        program = torch.export.export(graph, tuple(examples), dynamic_shapes=dynamic, strict=False)
    return program.run_decompositions({})  # inlines what was under autocast, which cannot be written


def write_torch(program: ExportedProgram, path: str | Path) -> None:
    """Write a graph as a file that :func:`torch.export.load` reads.

    Raises:
        InputError: where it cannot be written.
    """
    with warnings.catch_warnings():
        # Of weights in channels_last, which are saved whole all the same.
        warnings.filterwarnings("ignore", "No complete tensor found in the group")
        write_whole(lambda file: torch.export.save(program, file), path)


def write_onnx(program: ExportedProgram, path: str | Path, axes: Axes) -> None:
    """Write a graph as one ONNX file with all weights in it; its output is called "refined".

    Args:
        program: from :func:`export_graph`.
        path: of the file.
        axes: of the graph, whose names of sizes the file takes over.

    Raises:
        InputError: where the packages onnx and onnxscript are missing, where ONNX lacks an operation of the graph, and
            where the file cannot be written.
    """
    check_onnx()
    named = {key: {i: s for i, s in enumerate(shape) if isinstance(s, str)} for key, (_, shape) in axes.items()}
    settings: Any = {"dynamo": True, "opset_version": OPSET, "output_names": [OUTPUT], "dynamic_shapes": named}
    try:
        found: Any = torch.onnx.export(program, verbose=False, **settings)
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(f"{path}: this refiner cannot be written as ONNX ({reason}); torch.export can be") from error
    write_whole(found.model_proto.SerializeToString(), path)


def check_onnx() -> None:
    """InputError where a package that writes ONNX files is missing."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f"an ONNX file needs {' and '.join(missing)}; install with: pip install {' '.join(missing)}")


def window_inputs(refiner: MaskRefiner, image: Any, masks: Any) -> Iterator[tuple[Part, dict[str, np.ndarray]]]:
    """What the graph of a refiner of masks takes, for masks on one image: in parts, since views share no windows.

    Args:
        refiner: whose graph it is for; it computes nothing here.
        image, masks: as of :meth:`~sharpcontour.anymask.refiner.MaskRefiner.refine`.

    Yields:
        A part of the masks, and the graph's inputs by name. ``part.masks`` (R,) says which mask each ring is of, and
        ``part.in_image(refined)`` brings refined contours (R, N, 2) into pixels of the image. A mask that is empty or
        too small to refine is in no part.

    Raises:
        InputError: where image or masks are broken.
    """
    pixels, given, _ = read_given(image, masks, None, None, None)
    config, mean = refiner.model.refiner.config, refiner.model.host.config.pixel_mean
    size = (pixels.shape[0], pixels.shape[1])
    for view, parts in parts_of(given, size, config.tracing, config.evolution.vertices, AT_ONCE_ON_CPU):
        seen = view.cut(pixels).transpose(2, 0, 1)
        height, width = (max(-(-side // BLOCK), LEAST_BLOCKS) * BLOCK for side in seen.shape[1:])
        padded = np.empty((1, 3, height, width), np.float32)
        padded[:] = np.array(mean).reshape(3, 1, 1)
        padded[0, :, : seen.shape[1], : seen.shape[2]] = seen
        for part in parts:
            arrays = part.arrays(view)
            yield part, {"image": padded, **arrays, "distance": arrays["distance"].astype(np.float32)}
