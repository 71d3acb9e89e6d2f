"""Imports go one way: scripts -> engine -> models, data, eval -> sharpcontour."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What each folder may import of this project, besides itself. Models share resizing and degraded masks with data.
ALLOWED = {
    "sharpcontour": set(),
    "data": {"sharpcontour"},
    "models": {"sharpcontour", "data"},
    "eval": {"sharpcontour", "data", "models"},
    "engine": {"sharpcontour", "data", "models", "eval"},
    "scripts": {"sharpcontour", "data", "models", "eval", "engine", "_cli"},
}
# What may be imported from elsewhere; the refiner stands alone with these.
REFINER = {"torch", "numpy", "cv2", "pycocotools", "tqdm"}
RUNTIME = {*REFINER, "torchvision", "PIL", "scipy", "tensorboard"}


def _imports(path: Path) -> set[tuple[str, str]]:
    """(top-level name, whole dotted name) of every import in a file, those inside functions too."""
    names: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {(alias.name.split(".")[0], alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            module = node.module or ""
            names |= {(module.split(".")[0], f"{module}.{alias.name}") for alias in node.names}
    return names


def _files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_no_file_imports_upwards(folder: str) -> None:
    for path in _files(folder):
        of_project = {name for name, _ in _imports(path)} & set(ALLOWED)
        assert of_project <= ALLOWED[folder] | {folder}, f"{path.relative_to(ROOT)} imports {of_project}"


def test_models_take_only_what_they_share_from_data() -> None:
    shared = ("data.transforms", "data.degrade")
    for path in _files("models"):
        taken = {whole for name, whole in _imports(path) if name == "data"}
        assert all(whole.startswith(shared) for whole in taken), f"{path.relative_to(ROOT)}: {taken}"


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_only_declared_packages_are_needed(folder: str) -> None:
    foreign = REFINER if folder == "sharpcontour" else RUNTIME
    for path in _files(folder):
        names = {name for name, _ in _imports(path)}
        unknown = names - set(ALLOWED) - foreign - set(sys.stdlib_module_names) - {"_cli"}
        assert not unknown, f"{path.relative_to(ROOT)} imports {unknown}"


def test_scripts_find_the_project() -> None:
    """The first import of every command is the one that puts the root on the path."""
    for path in _files("scripts"):
        if path.name.startswith("_"):
            continue
        body = ast.parse(path.read_text(encoding="utf-8")).body
        imports = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
        first = next(node for node in imports if getattr(node, "module", None) != "__future__")
        assert isinstance(first, ast.Import) and first.names[0].name == "_cli", path.name
