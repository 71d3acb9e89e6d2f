"""The tables of the paper: what stands in them, and which of our runs fills which cell.

A table is a list of rows, a row a cell of ours beside the paper's numbers (COCO val2017 but for Table 2). "Mask R-CNN"
is the paper's retrained one (marked * there); the row of the original and AP on test-dev are left out. Where a table
repeats a model of Table 1 without its Boundary AP, that is taken from Table 1. Tables 10 to 12 are not in the paper:
refiners that take any masks, on the same masks; what makes phi sure; and the package's refiner behind every detector.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Body = Literal["R50", "R101", "X101"]


@dataclass(frozen=True)
class Run:
    """A training that the tables need.

    Attributes:
        model: name in models.MODELS.
        refine: whether SharpContour stands behind it.
        settings: values that differ from the recipe's.
        alone: run whose weights it starts from and keeps; only the refiner learns.
        body: of the backbone.
        long: three times the recipe's schedule.
    """

    model: str
    refine: bool = False
    settings: tuple[str, ...] = ()
    alone: str = ""
    body: Body = "R50"
    long: bool = False


_CHANGES: dict[str, tuple[str, ...]] = {
    "gamma=0": ("sharpcontour.loss.gamma=0",),
    "sigma=0.01": ("sharpcontour.points.sigma=0.01",),
    "sigma=0.04": ("sharpcontour.points.sigma=0.04",),
    "width=32": ("sharpcontour.classifier.hidden=32", "sharpcontour.classifier.feature_channels=32"),
    "points=512": ("sharpcontour.points.points=512",),
    "feature_norm": ("sharpcontour.classifier.feature_norm=true",),
    "updates=3000": ("train.iterations=3000",),
}
"""Table 11's trainings of the refiner alone, each with one change, by the names of their runs."""


START = "start"  # what all others begin from where there are no ImageNet weights of their small body
RUNS: dict[str, Run] = {
    START: Run("mask_rcnn"),
    "mask_rcnn": Run("mask_rcnn"),
    "mask_rcnn_refine": Run("mask_rcnn", True),
    "mask_rcnn_alone": Run("mask_rcnn", True, alone="mask_rcnn"),
    "mask_rcnn_polytransform": Run("mask_rcnn", True, ("sharpcontour.classifier.output=polygon",), alone="mask_rcnn"),
    "mask_rcnn_vector": Run("mask_rcnn", True, ("sharpcontour.classifier.output=vector",)),
    "mask_rcnn_distance": Run("mask_rcnn", True, ("sharpcontour.classifier.output=distance",)),
    "pointrend": Run("pointrend"),
    "pointrend_refine": Run("pointrend", True),
    "refinemask": Run("refinemask"),
    "refinemask_refine": Run("refinemask", True),
    "dance": Run("dance"),
    "dance_refine": Run("dance", True),
    "condinst": Run("condinst"),
    "condinst_refine": Run("condinst", True),
    "deepsnake": Run("deepsnake"),
    "deepsnake_refine": Run("deepsnake", True),
    **{f"mask_rcnn_alone_{name}": Run("mask_rcnn", True, changed, "mask_rcnn") for name, changed in _CHANGES.items()},
    **{f"mask_rcnn_{body}_3x": Run("mask_rcnn", body=body, long=True) for body in ("R50", "R101", "X101")},
    **{f"mask_rcnn_refine_{body}_3x": Run("mask_rcnn", True, body=body, long=True) for body in ("R50", "R101", "X101")},
}
"""The trainings that the tables need, by name, which is also the name of their folders."""


BPR = "bpr"  # learns from the results of the run that it refines
PACKAGE = "package"  # the trained refiner that the package contains; it has learned from photographs


@dataclass(frozen=True)
class Cell:
    """Where a row's numbers come from.

    Attributes:
        run: name in :data:`RUNS`.
        kind: the host's masks, or the refined ones.
        settings: of the evolution, changed after training.
        refined_by: run whose refiner gets the results of ``run`` as a file; or :data:`BPR`, or :data:`PACKAGE`.
        study: whether phi itself is measured too.
    """

    run: str
    kind: Literal["coarse", "refined"] = "coarse"
    settings: tuple[str, ...] = ()
    refined_by: str = ""
    study: bool = False


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        title: as in the paper.
        cell: of ours.
        paper: its numbers, by metric; empty where the paper has no such row.
        against: title of the row that gains are counted from.
    """

    title: str
    cell: Cell
    paper: dict[str, float] = field(default_factory=dict)
    against: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        title: what it shows.
        metrics: its columns.
        rows: its lines.
        curves: for a plot, names of lines and the titles of the rows on each.
        own_seeds: whether each row is over all seeds that it has, since its models are trainings of their own; else
            all rows are over the seeds that they share, so that their heights compare.
    """

    title: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    curves: dict[str, tuple[str, ...]] = field(default_factory=dict)
    own_seeds: bool = False


METRICS: dict[str, tuple[str, str]] = {
    "AP": ("segm", "AP"),
    "Boundary AP": ("boundary", "AP"),
    "AP*": ("lvis", "AP"),
    "AP*_S": ("lvis", "APs"),
    "AP*_M": ("lvis", "APm"),
    "AP*_L": ("lvis", "APl"),
    "AP_S": ("segm", "APs"),
    "AP_M": ("segm", "APm"),
    "AP_L": ("segm", "APl"),
    "sharpness": ("phi", "sharpness"),
    "accuracy": ("phi", "accuracy"),
    "calibration error": ("phi", "calibration_error"),
}
"""Column -> metric and number of eval.metrics; :data:`COSTS` come from scripts/benchmark.py."""
COSTS = ("ms", "refiner ms", "refiner parameters")  # milliseconds of an image, millions

_EVOLUTION = "sharpcontour.evolution."
_HOST, _SHARP = "Mask R-CNN", "Mask R-CNN + SharpContour"
_MAIN = ("AP", "Boundary AP", "AP*")


def _row(title: str, cell: Cell, against: str, names: tuple[str, ...], *values: float | None) -> Row:
    """A row of a table with the paper's ``values`` in the columns ``names``; None where the paper has nothing."""
    values += (None,) * (len(names) - len(values))
    return Row(title, cell, {n: v for n, v in zip(names, values, strict=True) if v is not None}, against)


def _refined(run: str, *settings: str) -> Cell:
    return Cell(run, "refined", tuple(_EVOLUTION + setting for setting in settings))


def _table_1() -> Table:
    names = ("AP", "Boundary AP", "AP*", "AP*_S", "AP*_M", "AP*_L", "ms")
    gap = (None,) * 4
    by_file = {run: Cell(run, "refined", refined_by="mask_rcnn_refine") for run in ("pointrend", "refinemask")}
    rows = (
        _row(_HOST, Cell("mask_rcnn"), "", names, 35.2, 21.2, 37.6, 22.8, 44.7, 53.8, 57.1),
        _row("DANCE", Cell("dance"), "", names, 34.5, 20.2, *gap, 60.6),
        _row("CondInst", Cell("condinst"), "", names, 35.7, 21.6, *gap, 57.5),
        _row("PointRend", Cell("pointrend"), _HOST, names, 36.3, 23.5, 39.7, 22.9, 46.7, 57.4, 76.9),
        _row("RefineMask", Cell("refinemask"), _HOST, names, 37.3, 24.7, 40.9, 24.1, 48.8, 58.0, 76.9),
        _row("DANCE + SharpContour", _refined("dance_refine"), "DANCE", names, 36.1, 23.9, *gap, 73.5),
        _row(_SHARP, _refined("mask_rcnn_refine"), _HOST, names, 37.5, 24.6, 41.2, 24.2, 49.1, 58.5, 66.7),
        _row("CondInst + SharpContour", _refined("condinst_refine"), "CondInst", names, 37.9, 24.9, *gap, 64.9),
        _row("DeepSnake", Cell("deepsnake"), "", names),
        _row("DeepSnake + SharpContour", _refined("deepsnake_refine"), "DeepSnake", names),
        _row(
            "RefineMask + SharpContour",
            by_file["refinemask"],
            "RefineMask",
            names,
            *(37.8, 25.8, 41.9, 24.3, 49.4, 59.1, 82.6),
        ),
        _row("PointRend + SharpContour", by_file["pointrend"], "PointRend", names),
        _row("RefineMask + SharpContour, one model", _refined("refinemask_refine"), "RefineMask", names),
        _row("PointRend + SharpContour, one model", _refined("pointrend_refine"), "PointRend", names),
    )
    return Table("hosts, rivals and SharpContour", names, rows, own_seeds=True)


def _table_2() -> Table:
    names = ("AP", "AP_S", "AP_M", "AP_L")
    rows = (
        _row(_HOST, Cell("mask_rcnn"), "", names, 33.8, 12.0, 31.5, 51.8),
        _row("PointRend", Cell("pointrend"), _HOST, names, 35.8),
        _row("RefineMask", Cell("refinemask"), _HOST, names, 37.6, 14.6, 34.0, 58.1),
        _row(_SHARP, _refined("mask_rcnn_refine"), _HOST, names, 37.7, 14.4, 34.2, 58.3),
    )
    return Table("Cityscapes, scored as COCO is", names, rows, own_seeds=True)


def _table_3() -> Table:
    rows = (
        _row(_HOST, Cell("mask_rcnn"), "", _MAIN, 35.2, 21.2, 37.6),
        _row("joint training", _refined("mask_rcnn_refine"), _HOST, _MAIN, 37.5, 24.6, 41.2),
        _row("training alone", _refined("mask_rcnn_alone"), _HOST, _MAIN, 36.2, None, 39.8),
    )
    return Table("training together, or the refiner alone", _MAIN, rows)


def _table_4() -> Table:
    rows = (
        _row(_HOST, Cell("mask_rcnn"), "", _MAIN, 35.2, 21.2, 37.6),
        _row("Mask R-CNN+", Cell("mask_rcnn_refine"), _HOST, _MAIN, 35.5, None, 38.0),
        _row(_SHARP, _refined("mask_rcnn_refine"), _HOST, _MAIN, 37.5, 24.6, 41.2),
    )
    return Table("what joint training does to the host (Mask R-CNN+)", _MAIN, rows)


def _table_5() -> Table:
    rows = (
        _row("with", _refined("mask_rcnn_refine"), "", _MAIN, 37.5, 24.6, 41.2),
        _row("without", _refined("mask_rcnn_refine", "adaptive_step=false"), "with", _MAIN, 37.0, None, 40.3),
    )
    return Table("step scaled by |phi - 0.5|", _MAIN, rows, {"adaptive step": ("without", "with")})


def _table_6() -> Table:
    values = {"R50": (37.2, 39.5, 39.3, 43.1), "R101": (38.6, 41.4, 40.8, 45.2), "X101": (39.5, 42.1, 41.8, 46.0)}
    rows: list[Row] = []
    for body, (ap, star, refined_ap, refined_star) in values.items():
        host, both = f"{_HOST} {body}", f"{_HOST} {body} + SharpContour"
        rows.append(_row(host, Cell(f"mask_rcnn_{body}_3x"), "", _MAIN, ap, None, star))
        rows.append(_row(both, _refined(f"mask_rcnn_refine_{body}_3x"), host, _MAIN, refined_ap, None, refined_star))
    return Table("larger backbones, three times the schedule", _MAIN, tuple(rows))


def _table_7() -> Table:
    names = ("AP", "Boundary AP", "ms")
    aps = {
        "lambda": {"0.0015": 37.1, "0.003": 37.5, "0.006": 36.6},
        "M": {"5": 36.8, "10": 37.5, "15": 37.2, "20": 37.1},
        "N": {"128": 37.5, "256": 37.8, "384": 38.0, "512": 38.0},  # the paper says 348, presumably for 384
    }
    frames = {"M": (15.4, 15.0, 14.7, 14.3), "N": (15.0, 14.6, 14.2, 13.7)}  # a second
    varied = (("lambda", "ratio", "0.003"), ("M", "max_steps", "10"), ("N", "vertices", "128"))
    rows: list[Row] = []
    for name, key, usual in varied:
        for k, (value, ap) in enumerate(aps[name].items()):
            changed = () if value == usual else (f"{key}={value}",)
            against = "" if value == usual else f"{name} = {usual}"
            paper = (ap, None, 1000 / frames[name][k] if name in frames else None)
            rows.append(_row(f"{name} = {value}", _refined("mask_rcnn_refine", *changed), against, names, *paper))
    curves = {name: tuple(f"{name} = {value}" for value in values) for name, values in aps.items()}
    return Table("deformation ratio, steps, vertices", names, tuple(rows), curves)


def _table_8() -> Table:
    names = ("AP", "Boundary AP")
    hosts = {
        "DANCE": ("dance_refine", (35.2, 35.7, 36.1, 36.2)),
        _HOST: ("mask_rcnn_refine", (36.6, 37.1, 37.5, 37.7)),
        "CondInst": ("condinst_refine", (36.9, 37.4, 37.9, 38.0)),
    }
    rows: list[Row] = []
    for title, (run, values) in hosts.items():
        rows.append(_row(f"{title}, n = 0", Cell(run), "", names))
        for n, ap in enumerate(values, 1):
            changed = () if n == 3 else (f"iterations={n}",)
            rows.append(_row(f"{title}, n = {n}", _refined(run, *changed), f"{title}, n = {n - 1}", names, ap))
    curves = {title: tuple(f"{title}, n = {n}" for n in range(5)) for title in hosts}
    return Table("iterations of the evolution", names, tuple(rows), curves)


def _table_9() -> Table:
    names, regression = ("AP", "Boundary AP"), {"Reg.1": "vector", "Reg.2": "distance"}
    cells = {title: _refined(f"mask_rcnn_{output}") for title, output in regression.items()}
    rows = (
        _row(_HOST, Cell("mask_rcnn"), "", names, 35.2, 21.2),
        _row("Reg.1", cells["Reg.1"], _HOST, names, 36.1),
        _row("Reg.2", cells["Reg.2"], _HOST, names, 36.2),
        _row("SharpContour", _refined("mask_rcnn_refine"), _HOST, names, 37.5, 24.6),
    )
    curves: dict[str, tuple[str, ...]] = {"Table 9": (_HOST, "Reg.1", "Reg.2", "SharpContour")}
    return Table("regression of vectors (Reg.1) or distances along the normal (Reg.2)", names, rows, curves)


def _table_10() -> Table:
    names = ("AP", "Boundary AP", "AP_S", "AP_M", "AP_L", "refiner ms", "refiner parameters")
    refiners = {"BPR": BPR, "PolyTransform": "mask_rcnn_polytransform"}
    refiners |= {"SharpContour, trained alone": "mask_rcnn_alone", "SharpContour, joint": "mask_rcnn_refine"}
    rows = [_row(_HOST, Cell("mask_rcnn"), "", names)]
    for title, refiner in refiners.items():
        rows.append(_row(f"+ {title}", Cell("mask_rcnn", "refined", refined_by=refiner), _HOST, names))
    return Table("not in the paper: generic refiners on the same masks, as files", names, tuple(rows))


def _table_11() -> Table:
    names = ("AP", "Boundary AP", "sharpness", "accuracy", "calibration error")
    evolution = ("temperature=0.5", "temperature=0.25", "ratio=0.006", "ratio=0.012")
    usual = "as in the paper"

    def cell(run: str, *changed: str) -> Cell:
        return Cell(run, "refined", tuple(_EVOLUTION + setting for setting in changed), study=True)

    rows = [_row(_HOST, Cell("mask_rcnn"), "", names), _row(usual, cell("mask_rcnn_alone"), _HOST, names)]
    rows += [_row(f"evolution: {setting}", cell("mask_rcnn_alone", setting), usual, names) for setting in evolution]
    rows += [_row(f"training: {name}", cell(f"mask_rcnn_alone_{name}"), usual, names) for name in _CHANGES]
    sharp = "mask_rcnn_alone_gamma=0"
    rows.append(_row("training: gamma=0, evolution: ratio=0.006", cell(sharp, "ratio=0.006"), usual, names))
    return Table(
        "not in the paper: what makes phi sure, one change at a time, the refiner trained alone behind one Mask R-CNN; "
        "percent: mean |phi - 0.5| and right verdicts 2 px beside the true boundary, mean gap of phi and share outside",
        names,
        tuple(rows),
    )


def _table_12() -> Table:
    names = ("AP", "Boundary AP")
    detectors = {_HOST: "mask_rcnn", "PointRend": "pointrend", "RefineMask": "refinemask", "CondInst": "condinst"}
    detectors |= {"DANCE": "dance", "DeepSnake": "deepsnake"}
    rows: list[Row] = []
    for title, run in detectors.items():
        rows.append(_row(title, Cell(run), "", names))
        rows.append(_row(f"{title} + package", Cell(run, "refined", refined_by=PACKAGE), title, names))
    rows.append(_row(_SHARP, _refined("mask_rcnn_refine"), _HOST, names))
    again = Cell("mask_rcnn_refine", "refined", refined_by=PACKAGE)
    rows.append(_row(f"{_SHARP} + package", again, _SHARP, names))
    return Table(
        "not in the paper: the package's refiner, which has seen no detector, on the results of detectors as files",
        names,
        tuple(rows),
        own_seeds=True,
    )


_ALL = (
    *(_table_1, _table_2, _table_3, _table_4, _table_5, _table_6),
    *(_table_7, _table_8, _table_9, _table_10, _table_11, _table_12),
)
TABLES: dict[int, Table] = {number: table() for number, table in enumerate(_ALL, 1)}
"""The tables by number. The paper prints one gain otherwise than its numbers say (DANCE's +1.5 AP in Table 1)."""
