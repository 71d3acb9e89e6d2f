"""The command, as a user calls it."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from engine.recipes import RECIPES
from eval import inference
from models import build_model, speed
from sharpcontour.io.plain import to_dict
from tests.eval import helpers

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "evaluate.py"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(5)
    data = helpers.synthetic(rng, 9)
    found = helpers.make_detections(data, rng)
    (folder / "gt.json.gz").write_bytes(gzip.compress(json.dumps(data).encode()))
    (folder / "r.json").write_text(json.dumps(found))
    (folder / "bad.json").write_text(json.dumps([{**found[0], "image_id": 123456}]))
    (folder / "broken.json").write_text("[{")
    return folder, data, found


@pytest.fixture
def command(
    files: tuple[Path, Any, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs the command in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(files[0])
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("evaluate_command", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            module._cli.run(module.main)
        return (int(left.value.code or 0), *capsys.readouterr())

    return call


def test_from_another_folder(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    arguments = [sys.executable, str(SCRIPT), "--results", "none.json", "--annotations", "gt.json"]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: gt.json: no such file\n")


def test_results_mode(files: tuple[Path, dict[str, Any], list[dict[str, Any]]], command: Command) -> None:
    folder, data, found = files
    code, shown, told = command("--results", "r.json", "--annotations", "gt.json.gz", "--json", "out.json")
    assert (code, told) == (0, "")
    numbers = json.loads((folder / "out.json").read_text())
    assert set(numbers) == {"segm", "boundary"}
    assert numbers["segm"] == helpers.reference(data, found)[0]
    literal = helpers.reference(data, found, helpers.LiteralBoundaryEval)[0]
    assert numbers["boundary"] == pytest.approx(literal, abs=1e-9)
    assert f"{numbers['segm']['AP']:.1f}" in shown and f"{len(found)} detections on" in shown and "of 9 images" in shown


def test_results_mode_with_options(files: tuple[Path, Any, Any], command: Command) -> None:
    more = ("--metrics", "boundary", "--dilation-ratio", "0.01", "--per-category", "--json", "one.json")
    code, shown, _ = command("--results", "r.json", "--annotations", "gt.json.gz", *more)
    numbers = json.loads((files[0] / "one.json").read_text())
    assert code == 0 and set(numbers) == {"boundary", "per_category"}
    assert list(numbers["per_category"]["boundary"]) == ["c3", "c7", "c9"] and "c9" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--results", "r.json", "--annotations", "gt.json.gz", "--metrics", "lvis"],
            "the metric lvis needs LVIS annotations",
        ),
        (["--results", "r.json"], "--annotations GT.json"),
        (["--results", "r.json", "--annotations", "gt.json.gz", "--root", "x"], "--root goes with --checkpoint"),
        (["--results", "r.json", "--annotations", "gt.json.gz", "--dilation-ratio", "-1"], "must be a positive number"),
        (["--results", "r.json", "--annotations", "gt.json.gz", "--json", "."], ".: is a folder"),
        (["--results", "r.json", "--annotations", "r.json"], "r.json: has no list 'images'"),
        (["--results", "broken.json", "--annotations", "gt.json.gz"], "broken.json: not valid JSON, line 1 column 3"),
        (
            ["--results", "bad.json", "--annotations", "gt.json.gz"],
            "bad.json: 1 image ids are not in gt.json.gz: 123456",
        ),
        (["--checkpoint", "none.pt"], "none.pt"),
        (["--results", "r.json", "--annotations", "gt.json.gz", "--set", "a=1"], "--set changes the refiner"),
        (["--checkpoint", "none.pt", "--annotations", "gt.json.gz"], "--annotations goes with --results"),
        (["--results", "r.json", "--annotations", "gt.json.gz", "--json", "r.json"], "r.json: the command also reads"),
        (["--results", "r.json", "--annotations", "gt.json.gz", "--amp", "bf16"], "--results has none"),
        (["--results", "r.json", "--annotations", "gt.json.gz", "--batch", "4"], "--results has none"),
        (["--checkpoint", "none.pt", "--processes", "2"], "--processes is for the boundaries of --results"),
        (["--checkpoint", "none.pt", "--json", "o.json", "--results-out", "o.json"], "o.json: the command also reads"),
    ],
)
def test_one_line_of_error(command: Command, arguments: list[str], message: str) -> None:
    code, shown, told = command(*arguments)
    assert (code, shown) == (2, "")
    assert told.startswith("error: ") and message in told and told.count("\n") == 1


def write_checkpoint(path: Path, refine: bool) -> None:
    config = RECIPES["shapes"]("dance", refine)
    config.host.backbone.name, config.host.backbone.width, config.host.backbone.fpn_channels = "resnet10", 16, 32
    config.host.channels = config.host.snake.channels = config.host.snake.pooled = 32
    config.data.shapes_size, config.data.val_images_count, config.data.workers = 96, 3, 0
    config.data.test_short_side = 96
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(_shape_names())]
    model = build_model(config.host, len(categories), config.sharpcontour if refine else None)
    torch.save({"model": model.state_dict(), "config": to_dict(config), "categories": categories, "step": 0}, path)


def _shape_names() -> list[str]:
    from data.shapes.outlines import CLASSES

    return list(CLASSES)


@pytest.mark.parametrize("refine", [True, False])
def test_checkpoint_mode(
    refine: bool, files: tuple[Path, Any, Any], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(files[0] / "c.pt", refine)
    out = ["--json", "c.json", "--results-out", "found.json", "--device", "cpu", "--batch", "2"]
    out += [] if refine else ["--amp", "bf16", "--channels-last"]
    asked: list[Any] = []
    own = speed.faster
    monkeypatch.setattr(speed, "faster", lambda model, *on, **how: asked.append((on, how)) or own(model, *on, **how))
    code, shown, told = command("--checkpoint", "c.pt", *out)
    assert code == 0, told
    choices = {"amp": "none" if refine else "bf16", "channels_last": not refine, "tf32": False}
    assert asked == [((torch.device("cpu"),), choices)]
    numbers = json.loads((files[0] / "c.json").read_text())
    assert numbers.pop("speed", None) == (None if refine else {"amp": "bf16", "channels_last": True, "tf32": False})
    assert set(numbers) == {"segm", "boundary"} | ({"coarse"} if refine else set())
    assert list(numbers["segm"]) == helpers.NAMES
    assert ("refined" in shown) == refine and "on 3 images" in shown
    assert isinstance(json.loads((files[0] / "found.json").read_text()), list)


def test_the_scores_of_refined_masks_are_on_top(
    files: tuple[Path, Any, Any], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(files[0] / "g.pt", True)
    own = inference.evaluate_model

    def known(*given: Any, **more: Any) -> Any:
        result = own(*given, **more)
        result["refined"]["segm"]["AP"], result["coarse"]["segm"]["AP"] = 2.0, 1.0
        return result

    monkeypatch.setattr(inference, "evaluate_model", known)
    assert command("--checkpoint", "g.pt", "--json", "g.json", "--device", "cpu")[0] == 0
    found = json.loads((files[0] / "g.json").read_text())
    assert (found["segm"]["AP"], found["coarse"]["segm"]["AP"]) == (2, 1)


def test_images_that_cannot_be_read_are_counted(files: tuple[Path, Any, Any], command: Command) -> None:
    """Their objects count as missed; only where no image can be read there is nothing to score."""
    folder = files[0]
    write_checkpoint(folder / "f.pt", refine=True)
    pixels = np.zeros((96, 96, 3), np.uint8)
    for k in range(1, 4):
        cv2.imwrite(str(folder / f"{k}.png"), pixels)
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:50])
    (folder / "3.png").write_bytes(cv2.imencode(".png", pixels[:90])[1].tobytes())
    data = {
        "images": [{"id": k, "file_name": f"{k}.png", "height": 96, "width": 96} for k in range(1, 5)],
        "annotations": [helpers.annotation(k, k, 1, np.eye(96, dtype=np.uint8)) for k in range(1, 5)],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(_shape_names())],
    }
    (folder / "val.json").write_text(json.dumps(data))
    arguments = ("--checkpoint", "f.pt", "--val-json", "val.json", "--val-images", ".", "--device", "cpu")
    code, shown, told = command(*arguments, "--workers", "0", "--batch", "2", "--json", "f.json")
    assert code == 0, told
    assert shown.startswith("trained on shapes; the files given are read as --data coco\n")
    assert "detections on 1 images" in shown
    last = shown.strip().splitlines()[-1]
    assert last.startswith("warning: 3 images cannot be used, and their objects count as missed: 2.png: the file is no")
    assert "; 3.png: the image has 96 x 90 pixels" in last and "; 4.png: no such image" in last
    assert len(json.loads((folder / "f.json").read_text())["left_out"]) == 3
    code, _, told = command(*arguments, "--workers", "0", "--study", "--json", "f.json")
    assert code == 0 and told.count("; it is left out\n") == 3 and "3.png: the image has 96 x 90" in told
    assert "study" in json.loads((folder / "f.json").read_text())
    (folder / "1.png").unlink()
    code, shown, told = command(*arguments, "--workers", "0")
    assert code == 2 and "error: none of the 4 images can be used; the first: 1.png: no such image" in told


def test_a_refiners_settings_can_change(files: tuple[Path, Any, Any], command: Command) -> None:
    write_checkpoint(files[0] / "e.pt", refine=True)
    key = "sharpcontour.evolution"
    code, shown, told = command("--checkpoint", "e.pt", "--device", "cpu", "--set", f"{key}.iterations=2")
    assert code == 0, told
    flips = shown.partition("flip_share ")[2].partition(",")[0].split()
    assert len(flips) == 2  # one for each iteration, also where nothing was found
    for changed in (f"{key}.iteration=2", "sharpcontour.points.sigma=1", "train.seed=3", f"{key}.iterations=x"):
        code, _, told = command("--checkpoint", "e.pt", "--device", "cpu", "--set", changed)
        assert code == 2 and changed.partition("=")[0] in told and told.count("\n") == 1


def test_other_categories_than_the_models(files: tuple[Path, Any, Any], command: Command) -> None:
    folder, data, _ = files
    write_checkpoint(folder / "d.pt", refine=False)
    for image in data["images"]:
        image["file_name"] = "x.jpg"
    (folder / "own.json").write_text(json.dumps(data))
    code, _, told = command("--checkpoint", "d.pt", "--val-json", "own.json", "--val-images", ".", "--device", "cpu")
    assert code == 2 and told.count("\n") == 1
    assert "own.json: its categories are not those of the model; only in the data: 3 c3, 7 c7, 9 c9" in told


def test_standard_errors(command: Command) -> None:
    code, out, err = command(
        "--results", "r.json", "--annotations", "gt.json.gz", "--bootstrap", "5", "--json", "errors.json"
    )
    assert code == 0 and "standard error of Boundary AP over images, 5 draws: results " in out, err
    assert len(json.loads(Path("errors.json").read_text())["replicates"]["segm"]) == 5
    code, _, err = command(
        "--results", "r.json", "--annotations", "gt.json.gz", "--bootstrap", "5", "--metrics", "lvis"
    )
    assert code == 2 and "--bootstrap is for the metrics segm and boundary" in err
