"""The house: no import circle, one way inside sharpcontour/ too, and section 3 of the paper on its top floor."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import sharpcontour

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("sharpcontour", "models", "data", "eval", "engine", "scripts")
# From the ground up: a file imports only files of its own floor or of lower ones.
FLOORS = (
    ("errors", "config"),
    ("masks", "io"),
    ("contours",),
    ("sampling", "host", "detections"),
    ("evolution", "ipc", "points", "loss", "statistics"),
    ("refiner",),
    ("regression",),
    ("refined_model",),
    ("pictures",),
    ("formats",),
    ("anymask",),
    ("app",),
    ("__main__",),
)


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, known: set[str]) -> set[str]:
    """Modules of the project that a file imports, inside functions and for type checkers too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= names or {node.module}
    return found & known


def _graph() -> dict[str, set[str]]:
    paths = {_module(path): path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    return {name: _imports(path, set(paths)) - {name} for name, path in paths.items()}


def test_there_is_no_import_circle() -> None:
    graph = _graph()
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_imports_go_one_way_inside_sharpcontour() -> None:
    floor = {name: k for k, names in enumerate(FLOORS) for name in names}
    for name, others in _graph().items():
        parts = name.split(".")
        if parts[0] != "sharpcontour" or len(parts) == 1:
            continue
        for other in others:
            target = other.split(".")
            if other == "sharpcontour" and parts[1] == "app":
                continue  # tells its version
            assert len(target) > 1 and floor[target[1]] <= floor[parts[1]], f"{name} imports {other}, a floor above it"


def test_the_reading_table_names_the_top_of_sharpcontour() -> None:
    table = (ROOT / "docs" / "code.md").read_text(encoding="utf-8").split("| file | paper |")[1].split("\n\n")[0]
    named = re.findall(r"`(\w+)\.py`", table)
    there = {path.stem for path in (ROOT / "sharpcontour").glob("*.py")} - {"__init__", "__main__"}
    assert len(named) == len(set(named)) and set(named) == there
    order = [name for name in named if name in ("evolution", "ipc", "refiner", "loss", "refined_model")]
    assert order == ["evolution", "ipc", "refiner", "loss", "refined_model"]  # 3.1, 3.2, 3.3, 3.4 with eqs. (2) and (3)


def test_the_reading_order_in_help_is_that_of_the_page() -> None:
    text = (ROOT / "docs" / "code.md").read_text(encoding="utf-8").split("| file | paper |")[1].split("\n\n")[0]
    order = re.findall(r"`(\w+)\.py`", text)
    tree = ast.parse((ROOT / "sharpcontour" / "__init__.py").read_text(encoding="utf-8"))
    named = re.findall(r"``([\w.]+)``", ast.get_docstring(tree) or "")
    missing = [
        name for name in named if not (ROOT / "sharpcontour" / name.replace(".", "/")).with_suffix(".py").is_file()
    ]
    assert not missing
    top = [name for name in named if "." not in name]
    assert top == [name for name in order if name in top] and {"evolution", "ipc", "loss", "refined_model"} <= set(top)


def test_rooms_are_as_the_page_on_the_code_says() -> None:
    text = (ROOT / "docs" / "code.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (ROOT / "sharpcontour").glob("*/__init__.py")}
    assert rooms == set(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE))


def test_one_version_is_told_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {sharpcontour.__version__}\n" in citation


def test_places_that_the_page_on_the_paper_names_are_there() -> None:
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    places = re.findall(r"`([\w/]+\.py)::([\w.]+)`", text)
    assert len(places) > 15
    for file, name in places:
        body: list[ast.stmt] = ast.parse((ROOT / "sharpcontour" / file).read_text(encoding="utf-8")).body
        for part in name.split("."):
            found = [node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == part]
            assert found, f"{file} has no {name}"
            body = found[0].body
    for file in re.findall(r"`([\w/]+\.py)[`:]", text):
        assert (ROOT / "sharpcontour" / file).is_file()
    settings = text.split("## What is not in the paper")[1]
    config = (ROOT / "sharpcontour" / "config.py").read_text(encoding="utf-8")
    for setting in re.findall(r"`(\w+)`", settings):
        assert f"    {setting}: " in config, setting


def test_lines_that_the_page_on_the_paper_quotes_are_those_of_the_source() -> None:
    parts = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8").split("```python\n")
    assert len(parts) > 7
    for k, part in enumerate(parts[1:], 1):
        quoted, before = part.split("```")[0], "".join(parts[:k])
        file, name = re.findall(r"`([\w/]+\.py)::([\w.]+)`", before)[-1]
        source = (ROOT / "sharpcontour" / file).read_text(encoding="utf-8")
        body: list[ast.stmt] = ast.parse(source).body
        for part_of_name in name.split("."):
            node = next(n for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name == part_of_name)
            body = node.body
        lines = source.splitlines(keepends=True)[node.lineno - 1 : node.end_lineno]
        assert quoted in "".join(lines), f"{file}::{name} no longer has the lines\n{quoted}"
