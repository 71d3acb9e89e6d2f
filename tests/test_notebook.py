"""docs/sharpcontour.ipynb runs from the checkout and with the package alone; what it stores is whole and small.

What it prints is looked at in parts only: numbers hang on the processor's last bits.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest

from tests.notebook import METADATA, NOTEBOOK, executed, pictures, printed

ROOT = NOTEBOOK.parents[1]


@pytest.fixture(autouse=True)
def _quiet_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kernel that leaves nothing in the home folder, whose threads do not wait for those of other tests."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)


def test_what_is_stored_is_whole_and_small() -> None:
    assert NOTEBOOK.stat().st_size < 300_000
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds == {"stream", "display_data"} and notebook.metadata == METADATA
    assert str(Path.home()) not in NOTEBOOK.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([\w./]+)\)", "".join(cell.source for cell in notebook.cells)):
        assert (NOTEBOOK.parent / target).is_file(), target


@pytest.mark.slow
def test_it_runs_from_the_checkout() -> None:
    notebook = executed(NOTEBOOK.parent)
    text = printed(notebook)
    assert "rings before and after: 3 3" in text
    for kind in ("dilated", "eroded", "noisy_grid", "stairs"):
        before, after = map(float, re.findall(rf"^{kind} +([\d.]+) +([\d.]+)$", text, re.MULTILINE)[0])
        assert after > before + 0.05
    assert pictures(notebook) == pictures(nbformat.read(NOTEBOOK, as_version=4))


@pytest.mark.slow
def test_it_runs_with_the_package_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("packages", "mine"):
        (tmp_path / folder).mkdir()
    (tmp_path / "packages" / "sharpcontour").symlink_to(ROOT / "sharpcontour")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    for name in ("coffee.jpg", "cup.png"):
        shutil.copy(NOTEBOOK.parent / name, tmp_path / "mine")
    text = printed(executed(tmp_path / "mine"))
    assert "rings before and after: 3 3" in text and "stairs" not in text
