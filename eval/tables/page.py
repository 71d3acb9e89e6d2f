"""The page that shows the tables of several data sets side by side, results/README.md, kept up to date in place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from eval.tables.paper import COSTS
from eval.tables.records import gain_of
from sharpcontour.io.files import read_json, write_whole

SOURCES = {"photos": "photographs", "shapes": "shapes"}  # folders of tables, and how they are called
COLUMNS = {
    10: ("AP", "Boundary AP", "refiner ms", "refiner parameters"),
    11: ("AP", "Boundary AP", "sharpness", "accuracy", "calibration error"),
}
USUAL = ("AP", "Boundary AP")
NONE = "-"


def update_page(page: Path, number: int) -> None:
    """Write Table ``number`` anew between its two comments in a page, ``<!-- table N -->`` and ``<!-- end -->``.

    A page that is not there, or has no such place, stays as it is.
    """
    if not page.is_file():
        return
    text = page.read_text(encoding="utf-8")
    place = re.compile(rf"(<!-- table {number} -->\n).*?(<!-- end -->)", re.DOTALL)
    new = place.sub(lambda found: f"{found[1]}\n{side_by_side(number, page.parent)}\n\n{found[2]}", text)
    if new != text:
        write_whole(new.encode(), page)


def side_by_side(number: int, results: Path) -> str:
    """Table ``number`` of all data sets of a folder of results, and of the paper, as one table in Markdown.

    Rows without any number of ours and columns without any number are left out. Where the rows of a data set are of
    different numbers of trainings, a column says of how many each is.
    """
    tables = {name: _rows(results / folder / f"table{number}.json") for folder, name in SOURCES.items()}
    together = {title: row for rows in tables.values() for title, row in rows.items()}
    columns = []
    for name, lines in [*tables.items(), ("paper", together)]:
        for metric in COLUMNS.get(number, USUAL):
            gain = metric not in COSTS  # of a cost the gain over nothing says nothing
            cells = {title: _cell(lines.get(title, {}).get(metric), name == "paper", gain) for title in together}
            if set(cells.values()) - {NONE}:
                columns.append((f"{name}: {metric}", cells))
        trainings = {title: _trainings(lines.get(title, {})) for title in together}
        if name != "paper" and len(set(trainings.values()) - {NONE}) > 1:
            columns.append((f"{name}: trainings", trainings))
    own = [cells for head, cells in columns if not head.startswith("paper")]
    shown = [title for title in together if any(cells[title] != NONE for cells in own)]
    written = [["", *(head for head, _ in columns)], ["---"] * (len(columns) + 1)]
    written += [[title, *(cells[title] for _, cells in columns)] for title in shown]
    return "\n".join(f"| {' | '.join(line)} |" for line in written)


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a table by title; none where it has not been made."""
    return {row["title"]: row for row in read_json(path)["rows"]} if path.is_file() else {}


def _trainings(row: dict[str, Any]) -> str:
    return str(len(row["seeds"])) if row.get("seeds") else NONE


def _cell(value: dict[str, Any] | None, paper: bool, with_gain: bool) -> str:
    number = "paper" if paper else "ours"
    if value is None or value[number] is None:
        return NONE
    if not paper:
        gain = gain_of(value)
    else:
        gain = "" if value["paper_gain"] is None else f"{value['paper_gain']:+.1f}"
    return f"{value[number]:.1f}" + (f" ({gain})" if gain and with_gain else "")
