"""The pages: every link leads somewhere, every message that is quoted exists, every command and example runs."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import pytest

from data.lvis import SYNSETS
from models.mask_rcnn import detectron2
from sharpcontour.app import command, page
from tests.commands import run_script
from tests.data.test_cityscapes_and_lvis import cityscapes, lvis
from tests.models.test_convert import as_detectron2, caffe2_resnet50, random_state

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
HAS_COMMANDS = [ROOT / "README.md", *(path for path in PAGES if path.parent.name == "docs")]
SMALL = ("train.iterations=1", "train.images_per_batch=1", "train.accumulation=1", "train.pictures=0")
SMALL += ("train.warmup_iterations=0", "train.eval_batch=1", "train.amp=none", "data.workers=0")
SMALL_SHAPES = ("data.shapes_size=64", "data.train_images_count=2", "data.val_images_count=2")
SMALL_IMAGES = ("data.short_sides=64", "data.test_short_side=64")
# What a command is given beside what the page says, so that it ends soon and leaves the checkout as it is.
MORE = {
    "benchmark.py": ["--repeats", "1", "--warmup", "0", "--instances", "2"],
    "export.py": ["--out", "weights.pt"],
    "reproduce.py": ["--show"],
}
# Words of the pages that stand for what a user has.
STANDS_FOR = {"HOST": "mask_rcnn", "S": "0", "RUN": "runs/mask_rcnn_refine_shapes", "PAPER_INPUT_RUN": "runs/anymask"}
# Commands that are not run here, and what runs them.
ELSEWHERE = {
    "pip install .": "tests/sharpcontour/test_install.py",
    "make test": ".ci/run",
    "make demo": "Makefile; its training is run here",
    ". .venv/bin/activate": "a shell",
    "python scripts/check_gpu.py --json gpu.json": "needs a GPU",
    "torchrun scripts/train.py --model dance --refine --root /data/coco --set host.backbone.name=convnext_tiny": (
        "tests/test_extending.py"
    ),
    "torchrun scripts/train.py --model ellipses --refine": "tests/test_extending.py",
    "torchrun scripts/train.py --model mask_rcnn --refine --data ids --root photographs --recipe small": (
        "tests/test_extending.py"
    ),
}


def prose(path: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(path: Path) -> list[str]:
    """The commands of a page: its blocks, then those in its text, which are told by their first words."""
    found = []
    for block in blocks(path, "sh"):
        if block.startswith("for "):
            found.append(block)
        else:
            lines = block.replace("\\\n", " ").splitlines()
            found += [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]
    inline = (" ".join(text.split()) for text in re.findall(r"`([^`]+)`", prose(path)))
    first = r"(python scripts/\w+\.py|torchrun scripts/\w+\.py|sharpcontour) ."
    return found + [text for text in inline if re.match(first, text)]


def anchors(path: Path) -> set[str]:
    """What can stand behind # in a link to a page, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        file, _, anchor = link.partition("#")
        if not link.startswith("https://"):
            target = (path.parent / file).resolve() if file else path
            assert target.exists(), f"{path.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{path.name}: {link}"


def messages() -> Iterator[str]:
    """Every text in the code, with ... for what is filled in."""
    for folder in ("sharpcontour", "models", "data", "engine", "eval", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    yield "".join(str(v.value) if isinstance(v, ast.Constant) else "..." for v in node.values)


def test_messages_that_are_explained_exist() -> None:
    text = " ".join((ROOT / "docs" / "faults.md").read_text(encoding="utf-8").split())
    quoted = re.findall(r"\*\*`([^`]+)`", text)
    known = list(messages())
    theirs = {"RuntimeError: operator torchvision::nms does not exist", "externally-managed-environment"}
    assert len(quoted) > 10 and theirs <= set(quoted)
    missing = [text for text in quoted if text not in theirs and not any(text.rstrip(".") in one for one in known)]
    assert not missing


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages take for granted: photographs, masks, data sets, trained models, results."""
    here = tmp_path_factory.mktemp("things")
    (here / "docs").mkdir()
    (here / "results" / "shapes").mkdir(parents=True)  # of the checkout
    for name in ("coffee.jpg", "cup.png"):
        shutil.copy(ROOT / "docs" / name, here / "docs")
    size = ("--train-count", "3", "--val-count", "2", "--size", "96")
    succeeds("prepare_data.py", "shapes", "--root", "data/coco", *size, cwd=here)
    for split, name in (("train", "A.json"), ("val", "B.json")):
        shutil.copy(here / f"data/coco/annotations/instances_{split}2017.json", here / name)
        shutil.copytree(here / f"data/coco/{split}2017", here / "DIR", dirs_exist_ok=True)
    shutil.copy(here / "B.json", here / "GT.json")
    for name in ("folder_of_images", "new_photos"):
        shutil.copytree(here / "data/coco/val2017", here / name)
    shutil.copytree(here / "DIR", here / "labels")
    for path in (here / "labels").glob("*.png"):
        shape = {"label": "square", "shape_type": "rectangle", "points": [[20, 20], [60, 70]]}
        size = {"imageHeight": 96, "imageWidth": 96}
        path.with_suffix(".json").write_text(json.dumps({"imagePath": path.name, "shapes": [shape], **size}))
    for name in ("results/photos/start.pt", "sharpcontour/anymask/weights.pt"):
        (here / name).parent.mkdir(parents=True)
        (here / name).symlink_to(ROOT / name)
    (here / "val2017").mkdir()
    truth = json.loads((here / "B.json").read_text())
    for image in truth["images"]:  # under COCO's names
        name = f"{image['id']:012}.png"
        shutil.copy(here / "DIR" / image["file_name"], here / "val2017" / name)
        image["file_name"] = name
    (here / "instances_val2017.json").write_text(json.dumps(truth))
    cityscapes(here / "data/cityscapes")
    results = [
        {key: one[key] for key in ("image_id", "category_id", "segmentation")} | {"score": 0.9}
        for one in truth["annotations"]
    ]
    for name in ("detections.json", "R.json"):
        (here / name).write_text(json.dumps(results))
    of_lvis = lvis()
    of_lvis["categories"][0]["synset"] = SYNSETS[truth["annotations"][0]["category_id"]]  # a class of the results
    of_lvis["annotations"][0]["image_id"] = truth["images"][0]["id"]
    of_lvis["images"] = [
        {**of_lvis["images"][0], "id": image["id"], "height": 96, "width": 96} for image in truth["images"]
    ]
    (here / "lvis_v0.5_val.json").write_text(json.dumps(of_lvis))
    weights = as_detectron2(random_state(detectron2("resnet50"), 80))
    plain = {"model": {key: value.numpy() for key, value in weights.items()}}
    (here / "model_final_f10217.pkl").write_bytes(pickle.dumps(plain))
    body = {key: value.numpy() for key, value in caffe2_resnet50().items()}
    (here / "R-50.pkl").write_bytes(pickle.dumps(body))
    for folder in ("masks", "photos"):
        (here / folder).mkdir()
    for name in ("photo.jpg", "photos/photo.jpg"):
        shutil.copy(ROOT / "docs" / "coffee.jpg", here / name)
    shutil.copy(ROOT / "docs" / "cup.png", here / "mask.png")
    run("sharpcontour photo.jpg mask.png --format coco", here)
    for name in ("masks.json", "masks/photo.json"):
        shutil.copy(here / "photo_sharp" / "photo.json", here / name)
    return here


@pytest.fixture(scope="module")
def trained(things: Path) -> Path:
    """The same, with models that were trained for an update."""
    for model in ("dance", "mask_rcnn"):
        run(f"torchrun scripts/train.py --model {model} --refine", things)
    files = "--train-json A.json --train-images DIR --val-json B.json --val-images DIR"
    run(
        f"torchrun scripts/train.py --model anymask --refine --recipe anymask_photos {files} --out runs/anymask", things
    )
    patches = ("--results", "R.json", "--annotations", "GT.json", "--images", "DIR", "--iterations", "1")
    succeeds("bpr.py", "train", *patches, "--out", "bpr.pt", cwd=things)
    return things


@pytest.fixture(autouse=True)
def _pages_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is served ends as if Ctrl-C was pressed, and no browser opens."""

    def interrupted(self: page.PageServer) -> None:
        self.work.refiner.result()
        raise KeyboardInterrupt

    monkeypatch.setattr(page.PageServer, "serve_forever", interrupted)
    monkeypatch.setattr(page, "PORT", 0)  # several tests may serve one at a time
    monkeypatch.setattr(webbrowser, "open", lambda address: True)


def succeeds(script: str, *arguments: str, cwd: Path) -> str:
    done = run_script(script, *arguments, cwd=cwd)
    text = done.stdout + done.stderr
    # After a single update nothing is found that could be drawn.
    few = script == "figures.py" and "was found by both masks" in text
    assert done.returncode == (2 if few else 0), f"{shlex.join([script, *arguments])}\n{text}"
    return text


def run(line: str, here: Path) -> None:
    """Run a command of a page in a folder; it succeeds."""
    if line.startswith("for "):
        return in_a_shell(line, here)
    words = [STANDS_FOR.get(word, word).replace("/data/", "data/") for word in shlex.split(line)]
    words = [re.sub(r"=(S|RUN)$", lambda found: f"={STANDS_FOR[found[1]]}", word) for word in words]
    if words[0] == "sharpcontour":
        return installed(words[1:], here)
    at = next(k for k, word in enumerate(words) if word.startswith("scripts/"))
    assert words[0] == "python" or (words[0] == "torchrun" and words[1:at] in ([], ["--nproc-per-node", "8"])), line
    script, arguments = words[at].removeprefix("scripts/"), words[at + 1 :]
    arguments += [] if script == "export.py" and "--out" in arguments else MORE.get(script, [])
    if script == "train.py":
        arguments = in_small(arguments)
    elif arguments[:1] == ["train"]:
        arguments += ["--iterations", "1"]  # of bpr.py; the last one counts
    succeeds(script, *arguments, cwd=here)
    return None


def in_small(arguments: list[str]) -> list[str]:
    """A training of one update, in the folder where it would be, but not in the checkout."""
    given = dict(pairwise(arguments))
    drawn = not {"--data", "--root", "--train-json"} & set(arguments)
    before = arguments[: arguments.index("--set")] if "--set" in arguments else arguments
    settings = arguments[len(before) + 1 :] + list(SMALL)
    if "--out" not in given:
        name = f"{given['--model']}{'_refine' if '--refine' in arguments else ''}"
        before = ["--out", f"runs/{name}_{given.get('--data', 'shapes' if drawn else 'coco')}", *before]
    if drawn:
        settings += SMALL_SHAPES
    elif given["--model"] != "anymask":
        settings += SMALL_IMAGES
        if not any(setting.startswith("host.backbone.weights=") for setting in settings):
            settings.append("host.backbone.weights=none")
    return [*before, "--set", *settings]


def installed(arguments: list[str], here: Path) -> None:
    """What the installed command does."""
    before, argv, out = Path.cwd(), sys.argv, StringIO()
    os.chdir(here)
    sys.argv = ["sharpcontour", *arguments]
    try:
        with redirect_stdout(out), redirect_stderr(out):
            command.main()
    except SystemExit as left:
        assert not left.code, f"sharpcontour {shlex.join(arguments)}\n{out.getvalue()}"
    finally:
        sys.argv = argv
        os.chdir(before)


def in_a_shell(script: str, here: Path) -> None:
    """Lines for bash, with the installed command."""
    program = here / "bin" / "sharpcontour"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m sharpcontour "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-e", "-c", script], cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("path", HAS_COMMANDS, ids=lambda path: path.name)
def test_commands_run(path: Path, trained: Path) -> None:
    done = trained / "done.txt"  # some stand on two pages
    before = done.read_text().splitlines() if done.exists() else []
    for line in commands(path):
        if line in ELSEWHERE or line in before:
            continue
        if line.startswith(("pip install", "python -m pip install")):
            can_be_installed(line)
        else:
            run(line, trained)
        with done.open("a") as file:
            file.write(f"{line}\n")


def can_be_installed(line: str) -> None:
    """Whether what ``pip install`` is told to install is there."""
    for word in line.partition("pip install ")[2].removeprefix("-r ").split():
        extra = re.fullmatch(r"\.\[(\w+)\]", word.strip("'"))
        assert (ROOT / word).exists() or (extra and f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text()), line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/refine.md"])
def test_examples_run(name: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    names: dict[str, Any] = {"masks": [cv2.imread(str(ROOT / "docs" / "cup.png"), cv2.IMREAD_GRAYSCALE) > 0]}
    for code in blocks(ROOT / name, "python"):
        exec(compile(code, name, "exec"), names)
    assert names["sharp"].masks().shape == (1, *names["masks"][0].shape)
