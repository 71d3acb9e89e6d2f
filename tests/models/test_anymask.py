"""AnyMask: targets, windows, what moves and what keeps its pixels, training and its own evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from data import DataConfig, build_dataset
from data.shapes import ShapesDataset
from data.transforms import Crop, Instances, cut_instances, window_around
from models import Predictor, build_model, load_model
from models.anymask import AnyMask
from sharpcontour import InputError, SharpContourConfig
from sharpcontour.anymask.foreign_masks import read_masks
from sharpcontour.anymask.in_windows import refine_in_windows
from sharpcontour.anymask.network import SIDE, AnyMaskConfig
from sharpcontour.anymask.refiner import WEIGHTS, load_refiner
from sharpcontour.anymask.views import LARGEST, plan_views
from sharpcontour.anymask.windows import distance_maps, to_window, windows_around
from sharpcontour.contours.carry import carry
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.contours.tracing import trace_mask
from sharpcontour.ipc import PointClassifier, sample_features
from sharpcontour.refiner import SharpContour
from tests.commands import run_script
from tests.models.helpers import disc


def config() -> SharpContourConfig:
    settings = SharpContourConfig()
    settings.classifier.distance = True
    settings.points.given = 0.4
    settings.evolution.ratio, settings.evolution.vertices = 0.02, 128
    return settings


def model(mask_input: bool = True) -> Any:
    torch.manual_seed(0)
    return build_model(AnyMaskConfig(8, 16, (8, 12, 16), mask_input=mask_input), 1, config())


def samples(one: Any, count: int = 2) -> tuple[list[torch.Tensor], list[Any]]:
    data = ShapesDataset(DataConfig(shapes_size=128), "train", one.target_builder)
    found = [data[0, index] for index in range(count)]
    return [sample["image"] for sample in found], [sample["target"] for sample in found]


def test_training_points_lie_in_the_window_of_their_own_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.anymask.targets.worsen", lambda mask, rng: mask)  # the given mask is the object's own
    seen: list[Any] = []
    learn = SharpContour.point_loss
    monkeypatch.setattr(SharpContour, "point_loss", lambda self, *given: (seen.append(given), learn(self, *given))[1])
    one = model()
    one(*samples(one))
    inputs, points, labels, _ = seen[0]
    stride = SIDE / inputs.distance.shape[3]
    distance = sample_features(inputs.distance, stride, torch.arange(len(points)), points)[:, 0]
    sure = distance.abs() > 0.05
    assert sure.float().mean() > 0.4 and ((distance > 0) == (labels > 0.5))[sure].float().mean() > 0.98


@pytest.mark.parametrize("mask_input", [True, False])
def test_losses_reach_every_weight(mask_input: bool) -> None:
    one = model(mask_input)
    losses = one(*samples(one))
    (losses["loss_mask"] + losses["loss_ipc"]).backward()
    assert losses["loss_ipc"] > 0 and losses["loss_mask"] > 0
    assert not [name for name, parameter in one.named_parameters() if parameter.grad is None]


def test_images_with_nothing_large_enough_to_learn_from() -> None:
    one = model()
    images, targets = samples(one)
    for target in targets:
        for key in ("given_object", "given_boxes", "given_windows", "given_distance", "given_boundary"):
            target[key] = target[key][:0]
    losses = one(images, targets)
    (losses["loss_mask"] + losses["loss_ipc"]).backward()
    assert losses["loss_ipc"] == 0 and all(p.grad is not None for p in one.parameters())


def test_targets_are_worse_masks_of_the_objects() -> None:
    one = model()
    _, targets = samples(one, 3)
    for target in targets:
        count = len(target["given_object"])
        assert count == one.host.config.masks_per_image and target["given_distance"].shape == (count, 128, 128)
        side = target["given_windows"][:, 2:] - target["given_windows"][:, :2]
        assert torch.allclose(side[:, 0], side[:, 1], rtol=1e-4)
        for k, own in enumerate(target["given_object"].tolist()):
            box, given = target["boxes"][own], target["given_boxes"][k]
            overlap = (torch.minimum(box[2:], given[2:]) - torch.maximum(box[:2], given[:2])).clamp(min=0).prod()
            assert overlap > 0.4 * (box[2:] - box[:2]).prod()
            distance = target["given_distance"][k].float()
            assert distance.min() < 0 < distance.max() and distance.abs().max() <= 1


def test_signed_distances_are_zero_on_the_outline_and_negative_inside() -> None:
    rings = trace_mask(disc(40, 30, 20, 60, 90))
    boxes = np.array([[20.0, 10, 60, 50]])
    windows = windows_around(boxes)
    assert windows.tolist() == [[14.0, 4.0, 66.0, 56.0]]
    (distance,) = distance_maps([rings], windows, boxes).astype(float)
    scale = SIDE / 52
    unit = 3.0 * 0.05 * 40 * scale  # window pixels that 1 stands for
    for radius in (15.0, 18.0, 22.0):
        places = to_window(np.array([[40 + radius, 30.0]]), windows[0])[0]
        cell = distance[int(places[1] / 2), int(places[0] / 2)]
        assert cell * unit == pytest.approx((radius - 20) * scale, abs=1.5 * scale)


def test_windows_of_one_scale_share_a_view_and_others_do_not() -> None:
    windows = np.array([[10.0, 10, 138, 138], [60, 10, 188, 138], [700, 500, 828, 628], [0, 0, 900, 900]])
    views = plan_views(windows, (800, 1000))
    assert sorted(sorted(view.instances) for view in views) == [[0, 1], [2], [3]]
    for view in views:
        x0, y0, x1, y1 = view.rectangle
        assert 0 <= x0 < x1 <= 1000 and 0 <= y0 < y1 <= 800
        image = view.cut(np.zeros((800, 1000, 3), np.uint8))
        assert max(image.shape[:2]) <= LARGEST
        placed = view.place(windows[view.instances])
        sides = placed[:, 2] - placed[:, 0]
        assert (sides > SIDE / 2).all() and (sides < 2 * SIDE).all()
    large = plan_views(np.array([[0.0, 0, 12_000, 12_000]]), (12_000, 12_000))
    assert large[0].cut(np.zeros((12_000, 12_000, 3), np.uint8)).shape == (SIDE, SIDE, 3)


def test_windows_that_cover_an_image_together_share_one_view() -> None:
    corners = np.random.default_rng(0).uniform(0, [512, 352], (60, 2))
    windows = np.concatenate([corners, corners + 128], 1)
    (view,) = plan_views(windows, (480, 640))
    assert sorted(view.instances) == list(range(60)) and view.scale == 2
    far = np.array([[0.0, 0, 128, 128], [2000, 0, 2128, 128]])
    assert len(plan_views(far, (480, 4000))) == 2


def test_the_networks_compute_in_16_bits_only_where_that_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    image, masks = np.zeros((60, 90, 3), np.uint8), disc(40, 30, 20, 60, 90)[None]
    one, found = model().eval(), []
    encode = one.host.encode
    types: list[torch.dtype] = []
    monkeypatch.setattr(one.host, "encode", lambda images: (types.append((f := encode(images)).dtype), f)[1])
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda native=native: native, raising=False)
        found.append(Predictor(one, [{"id": 1, "name": "object"}], 60, 90).refine(image, masks))
    assert types == [torch.bfloat16, torch.float32]
    assert np.abs(np.concatenate(found[0].rings[0]) - np.concatenate(found[1].rings[0])).max() < 1


def test_what_does_not_move_keeps_its_vertices() -> None:
    ring = trace_mask(disc(40, 30, 20, 60, 90))[0].astype(np.float64)
    angle = np.arange(128) * (2 * np.pi / 128)
    edges = np.hypot(*(np.roll(ring, -1, 0) - ring).T)
    place = np.concatenate([[0], np.cumsum(edges)])[:-1] * 128 / edges.sum()
    start = np.stack([np.interp(np.arange(128), [*place, 128], [*ring[:, k], ring[0, k]]) for k in (0, 1)], 1)
    assert carry(ring, start, start + 0.05, 0.1) is ring
    moved = np.zeros((128, 1))
    moved[20:40] = 3
    end = start + moved * np.stack([np.cos(angle), np.sin(angle)], 1)
    new = carry(ring, start, end, 0.1)
    before, after = rings_to_masks([[ring], [new]], 60, 90)
    stays = np.flatnonzero((place > 42) | (place < 18))
    assert all((np.abs(new - ring[k]).max(1) < 1e-4).any() for k in stays)
    assert (before != after).sum() > 20
    untouched = np.ones((60, 90), bool)
    low, high = (
        np.minimum(start, end)[17:43].min(0).astype(int) - 1,
        np.maximum(start, end)[17:43].max(0).astype(int) + 2,
    )
    untouched[low[1] : high[1], low[0] : high[0]] = False
    assert np.array_equal(before & untouched, after & untouched)


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that knows the object, a disc of radius 30 at (60, 45), in windows around a disc of radius 26."""

    def classify(self: Any, described: Any, instance: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        scale = 67.6 / SIDE
        return ((points * scale + torch.tensor([60 - 33.8, 45 - 33.8])) - torch.tensor([60.0, 45])).norm(dim=-1) - 30

    monkeypatch.setattr(PointClassifier, "forward", classify)


@pytest.mark.usefixtures("oracle")
def test_coordinates_go_there_and_back() -> None:
    predictor = Predictor(model(), [{"id": 1, "name": "object"}], 96, 160)
    image = np.full((100, 130, 3), 90, np.uint8)
    given = np.stack([disc(60, 45, 26, 100, 130), np.zeros((100, 130), bool)])
    found = predictor.refine(image, given, scores=[0.5, 0.7], labels=[3, 4])
    after = found.masks()
    wanted = disc(60, 45, 30, 100, 130)
    assert (after[0] & wanted).sum() / (after[0] | wanted).sum() > 0.97
    assert not after[1].any() and found.scores.tolist() == [0.5, pytest.approx(0.7)]
    assert found.coarse is not None and np.array_equal(found.coarse.masks(), given)


def test_a_margin_keeps_vertices_that_phi_is_not_sure_of() -> None:
    one = model().eval()  # its last layer begins at zero: phi is 0.5 everywhere
    one.refiner.config.evolution.margin, one.refiner.config.evolution.ratio = 0.01, 0.1
    predictor = Predictor(one, [{"id": 1, "name": "object"}], 96, 160)
    with torch.no_grad():
        one.refiner.classifier.controller.predict.bias[-1] = 0.02
    mask = disc(60, 45, 26, 100, 130)
    found = predictor.refine(np.full((100, 130, 3), 90, np.uint8), mask[None])
    assert found.rings[0] is found.coarse.rings[0]  # type: ignore[union-attr]
    one.refiner.config.evolution.margin = 0.0
    moved = predictor.refine(np.full((100, 130, 3), 90, np.uint8), mask[None])
    assert moved.rings[0] is not moved.coarse.rings[0]  # type: ignore[union-attr]


def test_outlines_stay_on_the_image() -> None:
    one = model().eval()
    one.refiner.config.evolution.ratio = 0.1
    with torch.no_grad():
        one.refiner.classifier.controller.predict.bias[-1] = -2.0  # phi says inside everywhere: all moves go outwards
    mask = np.zeros((60, 80), bool)
    mask[10:40, :30] = True
    found = Predictor(one, [{"id": 1, "name": "object"}], 96, 160).refine(
        np.full((60, 80, 3), 90, np.uint8), mask[None]
    )
    ring = found.rings[0][0]
    assert ring.min() >= 0 and ring[:, 0].min() == 0 and ring[:, 0].max() > 32


def test_parts_that_grow_together_leave_no_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    centres = torch.tensor([[30.0, 40], [70, 40]])

    def classify(self: Any, described: Any, instance: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        on_image = points * (98.8 / SIDE) + torch.tensor([50 - 49.4, 40 - 49.4])
        return (on_image[..., None, :] - centres).norm(dim=-1).amin(-1) - 22  # two discs that overlap

    monkeypatch.setattr(PointClassifier, "forward", classify)
    predictor = Predictor(model(), [{"id": 1, "name": "object"}], 96, 160)
    photograph = np.full((80, 130, 3), 90, np.uint8)
    apart = [disc(x, 40, 18, 80, 130) for x in (30, 70)]
    found = predictor.refine(photograph, [apart[0] | apart[1]])
    wanted = disc(30, 40, 22, 80, 130) | disc(70, 40, 22, 80, 130)
    assert len(found.rings[0]) == 1 and (found.masks()[0] ^ wanted).sum() < 0.07 * wanted.sum()


def test_only_rings_near_one_that_moved_are_joined() -> None:
    def circle(x: float, y: float, radius: float) -> np.ndarray:
        angle = np.arange(40)[:, None] * (2 * np.pi / 40)
        return np.hstack([x + radius * np.cos(angle), y + radius * np.sin(angle)])

    def pixels(*rings: np.ndarray) -> np.ndarray:
        return rings_to_masks([[ring] for ring in rings], 80, 130)

    first, far, body, hole = circle(20, 20, 9), circle(110.3, 20.2, 9), circle(40, 40, 15), circle(40.4, 40.4, 6)
    given = read_masks([[first], [far, body, hole, circle(75, 40, 15)]], 80, 130)
    moved = circle(66, 40, 15)  # into the body, and not as far as its hole
    joined = given.with_moved(1, {3: moved}, 80, 130)
    parts = pixels(far, body, hole, moved)
    assert len(joined) == 3 and joined[1] is given.objects[1][0] and joined[2] is given.objects[1][2]
    assert np.array_equal(rings_to_masks([joined], 80, 130)[0], parts[0] | (parts[1] & ~parts[2]) | parts[3])
    grown = circle(47.4, 40.4, 12)  # the hole leaves the body
    opened = given.with_moved(1, {2: grown}, 80, 130)
    parts = pixels(far, body, grown, circle(75, 40, 15))
    assert np.array_equal(rings_to_masks([opened], 80, 130)[0], parts[0] | (parts[1] & ~parts[2]) | parts[3])
    apart = given.with_moved(1, {3: circle(76, 40, 14)}, 80, 130)
    assert [a is b for a, b in zip(apart, given.objects[1], strict=True)] == [True, True, True, False]
    crossing = read_masks([[body, circle(62, 40, 15), circle(100, 40, 9)]], 80, 130)  # whose even-odd rule was meant
    kept = crossing.with_moved(0, {1: circle(61, 40, 15)}, 80, 130)
    assert len(kept) == 3 and not rings_to_masks([kept], 80, 130)[0, 40, 50]


def test_it_finds_nothing_by_itself() -> None:
    one = model().eval()
    with pytest.raises(InputError, match="anymask detects nothing; give it masks"):
        one([torch.zeros(3, 64, 64)])
    with pytest.raises(InputError, match=f"not at boxes; see {refine_in_windows.__module__}"):
        one.host.describe(None, [])
    assert not AnyMask.finds


def test_a_cut_shows_what_the_window_holds() -> None:
    mask = disc(60, 45, 30, 100, 130)
    rings = trace_mask(mask)
    crop = Crop(30, 15, mask[15:75, 30:90].astype(np.uint8))
    one = Instances(
        np.array([[30, 15, 90, 75]], np.float32), np.zeros(1, np.int64), [rings], [crop], np.ones(1, np.int64)
    )
    window = window_around(np.array([30.0, 15, 90, 75]), (100, 130), 50, (0.0, 0.0))
    assert window == (30, 15, 80, 65)
    cut = cut_instances(one, window)
    assert np.array_equal(rings_to_masks(cut.rings, 50, 50)[0], mask[15:65, 30:80])
    whole = cut_instances(one, (20, 5, 120, 95))
    assert np.array_equal(rings_to_masks(whole.rings, 90, 100)[0], mask[5:95, 20:120])
    assert np.allclose(whole.rings[0][0], rings[0] - [20, 5])


def test_crops_around_objects(tmp_path: Path) -> None:
    image = np.zeros((100, 130, 3), np.uint8)
    image[disc(60, 45, 12, 100, 130)] = 200
    cv2.imwrite(str(tmp_path / "a.png"), image)
    polygon = trace_mask(disc(60, 45, 12, 100, 130))[0].ravel().tolist()
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [48, 33, 24, 24], "area": 452, "segmentation": [polygon]}
    images = [{"id": 1, "file_name": "a.png", "width": 130, "height": 100}]
    text = {"images": images, "annotations": [entry], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "t.json").write_text(json.dumps(text))
    settings = DataConfig(
        "coco", train_json=str(tmp_path / "t.json"), train_images=str(tmp_path), object_crop=96, colour=1.0
    )
    data = build_dataset(settings, "train", model().target_builder)
    for epoch in range(4):
        sample = data[epoch, 0]
        target = sample["target"]
        longer = float((target["boxes"][0, 2:] - target["boxes"][0, :2]).max())
        assert max(target["size"]) <= 96 and 0.25 * 96 < longer <= min(72.5, 96)  # three times as large at most
        assert len(target["given_object"]) > 0


def test_it_trains_evaluates_and_is_loaded_again(tmp_path: Path) -> None:
    settings = ["train.iterations=2", "data.shapes_size=96", "data.val_images_count=2", "data.workers=0"]
    settings += ["train.images_per_batch=2", "train.reference_batch=2", "train.amp=none", "host.width=8"]
    settings += ["sharpcontour.classifier.distance=true", "sharpcontour.points.given=0.3"]
    command = ["--model", "anymask", "--refine", "--out", "run", "--set", *settings]
    done = run_script("train.py", *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics["masks"]["noisy_grid"]) >= {"IoU", "improved", "harmed", "worst"} and metrics["images"] == 2
    assert "noisy_grid" in done.stdout and "ms a mask" in done.stdout
    again = run_script("evaluate.py", "--checkpoint", "run", "--json", "m.json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "m.json").read_text())["masks"] == metrics["masks"]
    useless = run_script("evaluate.py", "--checkpoint", "run", "--bootstrap", "9", "--metrics", "segm", cwd=tmp_path)
    assert useless.returncode == 2 and "detects nothing, so --bootstrap, --metrics would change" in useless.stderr
    _exports(tmp_path)
    refused = run_script("predict.py", "--checkpoint", "run", "--out", "o", str(_photo(tmp_path)), cwd=tmp_path)
    assert refused.returncode == 2 and "anymask detects nothing; give it masks" in refused.stderr


def _exports_means(folder: Path) -> None:
    """The mean with weights of w.pt that are twice as large is half as much larger; others are refused."""
    contents = torch.load(folder / "w.pt", weights_only=True)
    doubled = {key: value * 2 if value.is_floating_point() else value for key, value in contents["model"].items()}
    torch.save({**contents, "model": doubled}, folder / "twice.pt")
    command = ["export.py", "--checkpoint", "run", "--trained-on", "discs", "--out", "mean.pt", "--mean-with"]
    done = run_script(*command, "twice.pt", "0.5", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = torch.load(folder / "mean.pt", weights_only=True)
    assert found["about"]["mean_with"] == {"share": 0.5, **contents["about"]}
    for key, value in found["model"].items():
        wanted = contents["model"][key] * (1.5 if value.is_floating_point() else 1)
        assert torch.allclose(value.float(), wanted.float(), rtol=2e-3, atol=1e-6), key
    refused = run_script(*command, "twice.pt", "1", cwd=folder)
    assert refused.returncode == 2 and "argument --mean-with: 1 is not between 0 and 1" in refused.stderr
    newest = max((folder / "run" / "checkpoints").glob("step_*.pt"))
    for name, read in (("mean.pt", "mean.pt"), (str(newest), "twice.pt")):
        over = run_script(*command[:6], name, "--mean-with", read, "0.5", cwd=folder)
        assert over.returncode == 2 and "also reads or writes this file" in over.stderr
    over = run_script("export_graph.py", "--checkpoint", "run", "--torch", str(newest), cwd=folder)
    assert over.returncode == 2 and "also reads or writes this file" in over.stderr
    other = run_script(*command, str(WEIGHTS), "0.5", cwd=folder)
    assert other.returncode == 2 and "weights.pt: is of another network than the checkpoint" in other.stderr


def _exports(folder: Path) -> None:
    """The file of weights refines as the checkpoint does, and is judged beside GrabCut and the checkpoint itself."""
    none = run_script("export.py", "--checkpoint", "run", "--out", "none/w.pt", cwd=folder)
    assert none.returncode == 2 and "--trained-on" in none.stderr
    settings = ("--set", "sharpcontour.evolution.ratio=0.02")
    done = run_script(
        "export.py", "--checkpoint", "run", "--trained-on", "discs", "--out", "w.pt", *settings, cwd=folder
    )
    assert done.returncode == 0 and "after 2 updates" in done.stdout, done.stderr
    _exports_means(folder)
    refiner = load_refiner(folder / "w.pt")
    assert refiner.about["trained_on"] == "discs" and refiner.model.refiner.config.evolution.ratio == 0.02
    mask, image = disc(32, 30, 14, 64, 64), np.zeros((64, 64, 3), np.uint8)
    image[mask] = 200
    predictor = load_model(folder / "run", "cpu")
    predictor.model.refiner.config.evolution.ratio = 0.02
    ours, theirs = refiner.refine(image, [mask]), predictor.refine(image, [mask])
    assert np.abs(ours.rings[0][0] - theirs.rings[0][0]).max() < 0.1  # 16 bits
    cv2.imwrite(str(folder / "1.png"), image)
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [18, 16, 28, 28], "area": 616, "iscrowd": 0}
    entry["segmentation"] = [trace_mask(mask)[0].ravel().tolist()]
    images = [{"id": 1, "file_name": "1.png", "width": 64, "height": 64, "source": "drawn"}]
    images.append({"id": 2, "file_name": "gone.png", "width": 64, "height": 64})
    entries = [entry, {**entry, "id": 2, "image_id": 2}]
    text = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "a"}]}
    (folder / "v.json").write_text(json.dumps(text))
    command = ["evaluate_masks.py", "--weights", "w.pt", "--val-json", "v.json", "--val-images", "."]
    command += ["--against", "grabcut", "run", "--kinds", "as_given", "dilated", "--json", "j.json", "--pictures", "p"]
    done = run_script(*command, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "j.json").read_text())
    assert list(found["others"]) == ["grabcut", "run"] and list(found["sources"]) == ["drawn"]
    assert found["masks"]["as_given"]["IoU"]["before"] == 100 and (folder / "p" / "worst.png").is_file()
    assert found["images"] == 1 and len(found["left_out"]) == 1 and "gone.png" in done.stdout
    assert found["sizes"] == {"20 to 40 px": {"objects": 1, **found["masks"]}}
    assert len(found["worst"]) == 2 and found["worst"][0]["gain"] <= found["worst"][1]["gain"]
    assert found["others"]["grabcut"]["masks"]["dilated"]["IoU"]["after"] > 99  # two colours are easy for it
    run_of_its_own = [*command[:1], "--checkpoint", "run", *command[3:], "--zoom"]
    assert "--zoom is for the package's refiner" in run_script(*run_of_its_own, cwd=folder).stderr


def _photo(folder: Path) -> Path:
    cv2.imwrite(str(folder / "photo.png"), np.zeros((64, 64, 3), np.uint8))
    return folder / "photo.png"
