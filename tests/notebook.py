"""Running docs/sharpcontour.ipynb; ``python -m tests.notebook`` runs it where it is and stores what comes out."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "sharpcontour.ipynb"
# Nothing of the machine that it was run on.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def executed(folder: Path) -> NotebookNode:
    """The notebook after all of its cells have run in a folder; CellExecutionError with the cell where one fails."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    resources = {"metadata": {"path": str(folder)}}
    return NotebookClient(notebook, timeout=600, resources=resources, record_timing=False).execute()


def pictures(notebook: NotebookNode) -> list[int]:
    """How many pictures each cell shows."""
    return [
        sum("image/jpeg" in output.get("data", {}) for output in cell.get("outputs", [])) for cell in notebook.cells
    ]


def printed(notebook: NotebookNode) -> str:
    """What all cells have printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


if __name__ == "__main__":
    fresh = executed(NOTEBOOK.parent)
    fresh.metadata = METADATA
    nbformat.write(fresh, NOTEBOOK)
