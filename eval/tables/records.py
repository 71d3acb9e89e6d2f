"""From the records of runs to the tables of the paper: paper, ours, difference.

A record is what one cell measured with one seed, a JSON object with "coarse" and "refined" (metric -> number by name,
as of :func:`eval.inference.evaluate_model`) and with what made it: "command", "commit", "iterations" and
"images_per_batch" of the run. Where the refiner of another run did it, "refiner" says what made that one. Where the
validation images are few, "coarse" and "refined" also have "replicates", metric -> AP of images drawn again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from eval.bootstrap import standard_error
from eval.pictures.plot import Curve
from eval.tables.paper import COSTS, METRICS, RUNS, Cell, Row, Table
from models.zoo import title_of
from sharpcontour.errors import InputError
from sharpcontour.io.files import read_json

Records = Mapping[int, dict[str, Any]]
"""Seed -> record of the cell with that seed."""
NOT_RUN = "not run"
CONFIDENCE = 0.95  # of an interval around a gain: where 0 is in it, the gain is called none


def record_name(cell: Cell, seed: int) -> str:
    """The file name of a record; the host's masks and the refined ones of a run share it."""
    changed = [setting.partition("=") for setting in cell.settings]
    parts = [cell.run, *(f"{key.rpartition('.')[2]}={value}" for key, _, value in changed)]
    if cell.refined_by:
        parts.append(f"by_{cell.refined_by}")
    if cell.study:
        parts.append("phi")
    return "-".join([*parts, f"seed{seed}"]) + ".json"


def read_records(folder: Path, cell: Cell) -> dict[int, dict[str, Any]]:
    """The records that have been measured of a cell so far, by seed."""
    found = sorted(folder.glob(record_name(cell, 0).replace("seed0", "seed*")))
    return {int(path.stem.rpartition("seed")[2]): read_record(path) for path in found}


def read_record(path: Path) -> dict[str, Any]:
    """Read one record; InputError where the file holds none."""
    record = read_json(path)
    parts = [record.get(kind, {}) for kind in ("coarse", "refined", "refiner")] if isinstance(record, dict) else [None]
    if not all(isinstance(part, dict) for part in parts) or not isinstance(record.get("command"), str):
        raise InputError(f"{path}: is no record of a run; remove it, and the run is measured again")
    return dict(record)


def milliseconds(times: Mapping[str, Any] | None, cell: Cell) -> float | None:
    """Milliseconds of an image by a cell's model, of the JSON of scripts/benchmark.py; None where it was not timed."""
    if times is None or cell.refined_by:
        return None
    subject = next((s for s in times["results"] if s["model"] == title_of(RUNS[cell.run].model)), None)
    if subject is None:
        return None
    total = float(subject["host"]["total"])
    if cell.kind == "refined":
        total *= subject["ratio"][1]  # of paired turns: what a refiner adds is less than their scatter
    for setting in cell.settings:
        varied = times["varied"].get(setting)
        if varied is None or subject is not times["results"][0]:
            return None
        total += statistics.median(varied) - statistics.median(times["varied"][""])
    return total


def cost(metric: str, cell: Cell, times: Mapping[str, Any] | None, refiners: Mapping[str, Any]) -> float | None:
    """What a cell costs, by :data:`COSTS`; None where that was not measured.

    Args:
        metric: the column.
        cell: of the table.
        times: of the models, see :func:`milliseconds`.
        refiners: of what refines files, by the name of its run, as scripts/benchmark.py --refiners tells.
    """
    if metric == "ms":
        return milliseconds(times, cell)
    if not cell.refined_by:
        return 0.0 if refiners else None
    found = refiners.get(cell.refined_by)
    if found is None:
        return None
    return float(found["ms"]) if metric == "refiner ms" else found["parameters"] / 1e6


def compare(
    table: Table, folder: Path, times: Mapping[str, Any] | None, refiners: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Every row of a table: title, seeds, and for each metric "paper", "ours", "difference" and both gains.

    "ours" is the mean over the seeds, with "low" and "high"; gains are counted from another row, ours over the seeds
    that both have ("gain_seeds"), with "gain_error", its standard error over images, where these were drawn (in pairs),
    and, of two seeds or more, over trainings; and "gain_limit", up to which it is called none, of one seed only where
    both are of one training. What is unknown is None. Unless the table has ``own_seeds``, seeds that another row of
    those that were run lacks are left out.
    """
    records: dict[str, Records] = {row.title: read_records(folder, row.cell) for row in table.rows}
    if not table.own_seeds:
        records = _of_shared_seeds(records)
    rows_by_title = {row.title: row for row in table.rows}
    result = []
    for row in table.rows:
        seeds = sorted(records[row.title])
        line: dict[str, Any] = {"title": row.title, "seeds": seeds, "made_by": _made_by(records[row.title])}
        for metric in table.metrics:
            found = _values(row, metric, records[row.title], times, refiners or {})
            base = rows_by_title.get(row.against)
            before = _values(base, metric, records[base.title], times, refiners or {}) if base else {}
            gains = {seed: found[seed] - before[seed] for seed in found if seed in before}
            paper = row.paper.get(metric)
            start = base.paper.get(metric) if base else None
            ours = statistics.fmean(found.values()) if found else None
            error = limit = None
            if base and metric not in COSTS:
                error, limit = _gain_error(row, base, metric, records, gains)
            line[metric] = {
                "paper": paper,
                "ours": ours,
                "low": min(found.values(), default=None),
                "high": max(found.values(), default=None),
                "seeds": [] if metric in COSTS else sorted(found),
                "difference": None if paper is None or ours is None else ours - paper,
                "paper_gain": None if paper is None or start is None else paper - start,
                "our_gain": statistics.fmean(gains.values()) if gains else None,
                "gain_seeds": [] if metric in COSTS else sorted(gains),
                "gain_error": error,
                "gain_limit": limit,
            }
        result.append(line)
    return result


def _of_shared_seeds(records: Mapping[str, Records]) -> dict[str, Records]:
    """The records of the seeds that all rows have of those that have any; all records where they share no seed."""
    seeds = [set(found) for found in records.values() if found]
    shared = set.intersection(*seeds) if seeds else set()
    return {title: {s: found[s] for s in found if s in shared or not shared} for title, found in records.items()}


def _values(
    row: Row, metric: str, records: Records, times: Mapping[str, Any] | None, refiners: Mapping[str, Any]
) -> dict[int, float]:
    """One metric of a row by seed; costs, which no seed changes, stand under seed -1."""
    if metric in COSTS:
        value = cost(metric, row.cell, times, refiners)
        return {} if value is None else {-1: value}
    kind, name = METRICS[metric]
    found = {seed: record.get(row.cell.kind, {}).get(kind, {}).get(name) for seed, record in records.items()}
    return {seed: value for seed, value in found.items() if value is not None}


def _gain_error(
    row: Row, base: Row, metric: str, records: Mapping[str, Records], gains: dict[int, float]
) -> tuple[float | None, float | None]:
    """Standard error of the mean of the gains of a row, by seed, and the half-width of its interval.

    The square of the error is that over images, where they were drawn, and, of two seeds or more, that over trainings.
    The interval is Student's, with the degrees of freedom of Welch and Satterthwaite, images counting as very many.
    There is no error of one seed whose images were not drawn, nor where they were drawn for other metrics or seeds
    only; and no interval of two trainings of one seed each, whose scatter nobody knows.
    """
    drawn = [_replicates(row, base, metric, records, seed) for seed in gains]
    pairs = [gain for gain in drawn if gain is not None]
    drawn_in_part = len(pairs) < len(drawn) and any(_has_replicates(records, row, seed) for seed in gains)
    if drawn_in_part or (not pairs and len(gains) < 2):
        return None, None
    over_images = standard_error(np.mean(pairs, 0)) if pairs else 0.0
    over_trainings = standard_error(list(gains.values())) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    error = math.hypot(over_images, over_trainings)
    if len(gains) == 1 and (row.cell.run, row.cell.refined_by) != (base.cell.run, ""):
        return error, None
    share = over_trainings / error if error else 0.0
    freedom = max(len(gains) - 1, 1) / max(share, 0.01) ** 4
    return error, error * float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _replicates(row: Row, base: Row, metric: str, records: Mapping[str, Records], seed: int) -> np.ndarray | None:
    """Gains of a row with one seed over images drawn again; None where none were, or not the same."""
    kind, name = METRICS[metric]
    found = [records[one.title][seed].get(one.cell.kind, {}).get("replicates", {}).get(kind, []) for one in (row, base)]
    if name != "AP" or not found[0] or len(found[0]) != len(found[1]):
        return None
    return np.subtract(*found)


def _has_replicates(records: Mapping[str, Records], row: Row, seed: int) -> bool:
    return "replicates" in records[row.title][seed].get(row.cell.kind, {})


def _made_by(records: Records) -> list[dict[str, Any]]:
    keys = ("command", "commit", "iterations", "images_per_batch", "refiner")
    return [{"seed": seed, **{key: record.get(key) for key in keys}} for seed, record in sorted(records.items())]


def curves(table: Table, lines: Sequence[dict[str, Any]]) -> list[Curve]:
    """The curves that the plot of a table shows."""
    by_title = {line["title"]: line["AP"] for line in lines}
    found = []
    for name, titles in table.curves.items():
        labels = [title.rpartition("= ")[2].rpartition(", ")[2] for title in titles]
        values = [by_title[title] for title in titles]
        found.append(Curve(name, labels, [v["ours"] for v in values], [v["paper"] for v in values]))
    return found


def markdown(number: int, table: Table, lines: Sequence[dict[str, Any]], about: str) -> str:
    """The table as text, a part for each metric; ``about`` says what was measured on what."""
    parts = [f"# Table {number}: {table.title}", about]
    for metric in table.metrics:
        head = f"| {metric} | paper | ours | difference | gain, paper | gain, ours | seeds |"
        parts.append("\n".join([head, "|---|---|---|---|---|---|---|", *(_line(line, metric) for line in lines)]))
    commands = [
        f"- `{made['command']}` at {made['commit']}: {made['iterations']} updates of {made['images_per_batch']} images"
        + (f"; the refiner: `{made['refiner']['command']}` at {made['refiner']['commit']}" if made["refiner"] else "")
        for line in lines
        for made in line["made_by"]
    ]
    return "\n\n".join([*parts, "Made by\n\n" + "\n".join(dict.fromkeys(commands) or ["- nothing yet"])]) + "\n"


def _line(line: dict[str, Any], metric: str) -> str:
    value = line[metric]
    ours = NOT_RUN
    if value["ours"] is not None:
        ours = f"**{value['ours']:.1f}**"
        if value["high"] > value["low"]:
            ours += f" ({value['low']:.1f}-{value['high']:.1f})"
    cells = [
        "" if value["paper"] is None else f"{value['paper']:.1f}",
        ours,
        *("" if value[key] is None else f"{value[key]:+.1f}" for key in ("difference", "paper_gain")),
        gain_of(value),
        " ".join(map(str, value["seeds"])),
    ]
    return f"| {line['title']} | {' | '.join(cells)} |"


def gain_of(value: Mapping[str, Any]) -> str:
    """Our gain with its error, of a metric of :func:`compare`, called none within its limit; empty without a gain."""
    gain, error, limit = (value[key] for key in ("our_gain", "gain_error", "gain_limit"))
    if gain is None:
        return ""
    if error is None:
        return f"{gain:+.1f}"
    return f"{'none: ' if limit is not None and abs(gain) <= limit else ''}{gain:+.1f} ± {error:.1f}"
