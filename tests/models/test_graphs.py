"""Refiners as graphs: the same vertices as the refiner itself, from torch.export and from ONNX."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import MODELS, build_model
from sharpcontour import Contours, InputError, SharpContourConfig, load_refiner
from sharpcontour.anymask import graphs
from sharpcontour.anymask.host import Windows
from sharpcontour.config import EvolutionConfig
from sharpcontour.contours.rasterize import rings_to_masks
from tests.commands import run_script
from tests.models.helpers import TINY, disc, drawn

TOLERANCE = 1e-3  # px


def photo(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of three discs on noise, and their masks: one cut off by the border, one with a hole."""
    rng = np.random.default_rng(height)
    places = ((60, 62, 31), (150, 40, 17), (width - 9, height - 30, 38))
    masks = np.stack([disc(x, y, radius, height, width) for x, y, radius in places])
    masks[0] &= ~disc(65, 60, 12, height, width)
    image = rng.integers(0, 60, (height, width, 3))
    for mask in masks:
        image[mask] = rng.integers(110, 190, 3) + rng.integers(0, 60, (int(mask.sum()), 3))
    return image.astype(np.uint8), masks


def shifted(masks: np.ndarray) -> np.ndarray:
    """The masks four pixels to the right."""
    moved = np.zeros_like(masks)
    moved[:, :, 4:] = masks[:, :, :-4]
    return moved


def tensors(arrays: dict[str, np.ndarray]) -> list[Tensor]:
    return [torch.from_numpy(array) for array in arrays.values()]


def compare(graph: Any, batches: list[list[Tensor]], folder: Path) -> None:
    """The graph as a module, as traced, saved and loaded again, and as ONNX."""
    graph.eval()
    with torch.no_grad():
        wanted = [graph(*inputs) for inputs in batches]
    for end, inputs in zip(wanted, batches, strict=True):
        (contours,) = (one for one in inputs if one.shape == end.shape)
        assert (end - contours).abs().max() > 0.1
    program = graphs.export_graph(graph)
    graphs.write_torch(program, folder / "g.pt2")
    loaded = torch.export.load(folder / "g.pt2").module()
    for end, inputs in zip(wanted, batches, strict=True):
        assert (loaded(*inputs) - end).abs().max() < TOLERANCE
    if not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        pytest.skip("torch.export is as it should be; onnx, onnxscript or onnxruntime is missing")
    import onnxruntime

    graphs.write_onnx(program, folder / "g.onnx", graph.axes)
    session = onnxruntime.InferenceSession(str(folder / "g.onnx"), providers=["CPUExecutionProvider"])
    assert [place.name for place in session.get_inputs()] == list(graph.axes)
    for end, inputs in zip(wanted, batches, strict=True):
        given = {name: tensor.numpy() for name, tensor in zip(graph.axes, inputs, strict=True)}
        found = session.run(["refined"], given)[0]
        assert np.abs(found - end.numpy()).max() < TOLERANCE


@pytest.mark.slow  # tracing takes most of a minute
def test_the_refiner_of_masks_in_the_package(tmp_path: Path) -> None:
    refiner = load_refiner()
    graph = graphs.MaskRefinerGraph(refiner.model)
    batches, gains = [], []
    for (height, width), count in (((112, 208), 3), ((150, 140), 1)):
        image, masks = photo(height, width)
        given = shifted(masks)[:count]
        for part, arrays in graphs.window_inputs(refiner, image, given):
            batches.append(tensors(arrays))
            with torch.no_grad():
                end = graph(*batches[-1])
                own = refiner_itself(refiner.model, arrays)
            assert torch.equal(end, own)
            rings = part.in_image(end.numpy()).astype(np.float32)
            for k in set(part.masks.tolist()):
                after = rings_to_masks([list(rings[part.masks == k])], height, width)[0]
                gains.append(iou(after, masks[k]) - iou(given[k], masks[k]))
    assert len(gains) == 4 and min(gains) > 0.02
    assert {len(inputs[1]) for inputs in batches} > {1}  # instances
    compare(graph, batches, tmp_path)


def refiner_itself(model: Any, arrays: dict[str, np.ndarray]) -> Tensor:
    image, windows, boxes, distance, contours, instance, hole = tensors(arrays)
    view = torch.zeros(len(windows), dtype=torch.int64)
    inputs = model.host.look(model.host.encode([image[0]]), Windows(view, windows, boxes, distance))
    inputs.contours = Contours(contours, instance, hole)
    return model.refiner.refine(inputs).steps[-1]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def decided(model: Any) -> nn.Module:
    """A model whose point classifier is not trained, but sure of what it says."""
    last = model.refiner.classifier.controller.predict
    nn.init.normal_(last.bias, std=0.6)
    nn.init.normal_(last.weight, std=0.05)
    return model.eval()


def host_inputs(model: Any, size: tuple[int, int], count: int) -> tuple[Any, list[Tensor]]:
    """What a host gives the refiner for so many instances on each of two images, and the inputs of the graph."""
    images = [drawn(seed, 3, *size)[0] for seed in range(2)]
    boxes = torch.tensor([[10.0, 8, 58, 50], [40, 20, 90, 80], [5, 30, 45, 75]])[:count]
    inputs = model.host.describe(model.host.encode(images), [boxes, boxes + 3])
    turn = torch.linspace(0, 2 * torch.pi, model.refiner.config.evolution.vertices + 1)[:-1]
    circle = torch.stack([turn.cos(), turn.sin()], 1)
    centre, half = (inputs.boxes[:, :2] + inputs.boxes[:, 2:]) / 2, (inputs.boxes[:, 2:] - inputs.boxes[:, :2]) / 2
    rings = centre[:, None] + half[:, None] * circle
    rings = torch.cat([rings, centre[:1, None] + 0.3 * half[:1, None] * circle])
    instance = torch.tensor([*range(len(inputs.boxes)), 0])
    hole = torch.tensor([False] * len(inputs.boxes) + [True])
    order = instance.argsort(stable=True)
    inputs.contours = Contours(rings[order], instance[order], hole[order], [[] for _ in inputs.boxes])
    given = [inputs.fine, inputs.boxes, inputs.image_index, inputs.feats, torch.tensor(inputs.image_sizes).float()]
    given += [inputs.contours.vertices, inputs.contours.instance, inputs.contours.hole]
    given += [] if inputs.context is None else [inputs.context]
    return inputs, [tensor.contiguous() for tensor in given]


def refined(name: str) -> Any:
    config = SharpContourConfig(evolution=EvolutionConfig(vertices=48, ratio=0.05, iterations=2))
    return decided(build_model(TINY[name](), 3, config))


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(TINY))
def test_a_graph_is_the_refiner_behind_its_host(name: str) -> None:
    model = refined(name)
    graph = graphs.RefinerGraph(model)
    inputs, given = host_inputs(model, (96, 128), 2)
    assert len(given) == len(graph.axes)
    for tensor, (dtype, shape) in zip(given, graph.axes.values(), strict=True):
        assert tensor.dtype == dtype and tensor.dim() == len(shape)
        assert all(isinstance(size, str) or size == own for own, size in zip(tensor.shape, shape, strict=True))
    assert torch.equal(graph(*given), model.refiner.refine(inputs).steps[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["condinst", "mask_rcnn"])  # with a coarser map, and without
def test_the_refiner_behind_a_host(name: str, tmp_path: Path) -> None:
    model = refined(name)
    with torch.no_grad():
        batches = [host_inputs(model, *case)[1] for case in (((96, 128), 1), ((128, 96), 3))]
    compare(graphs.graph_of(model), batches, tmp_path)


def test_what_cannot_be_a_graph_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="this model has no refiner"):
        graphs.graph_of(build_model(TINY["dance"](), 3))
    nothing = run_script("export_graph.py", cwd=tmp_path)
    assert nothing.returncode == 2 and "nothing to write; give --onnx FILE" in nothing.stderr
    twice = run_script("export_graph.py", "--onnx", "a", "--torch", "a", cwd=tmp_path)
    assert twice.returncode == 2 and "choose another name" in twice.stderr
    monkeypatch.setattr(graphs, "find_spec", lambda name: None)
    missing = run_script("export_graph.py", "--onnx", "a.onnx", cwd=tmp_path)
    wanted = "error: an ONNX file needs onnx and onnxscript; install with: pip install onnx onnxscript\n"
    assert missing.returncode == 2 and missing.stderr == wanted and not (tmp_path / "a.onnx").exists()


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    vertices = ("--set", "sharpcontour.evolution.vertices=64")
    done = run_script("export_graph.py", "--torch", "r.pt2", *vertices, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "contours: float32 (R, 64, 2)" in done.stdout and "r.pt2: 3" in done.stdout
    program = torch.export.load(tmp_path / "r.pt2")
    refiner = load_refiner()
    refiner.model.refiner.config.evolution.vertices = 64
    image, masks = photo(112, 208)
    for _, arrays in graphs.window_inputs(refiner, image, shifted(masks)):
        assert program.module()(*tensors(arrays)).shape == arrays["contours"].shape


def test_every_host_is_known_here() -> None:
    assert set(TINY) == set(MODELS) - {"anymask"}
