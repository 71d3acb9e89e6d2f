"""Filling the cells of tables, by the project's own commands: what is missing is trained, evaluated and recorded."""

from __future__ import annotations

import argparse
import io
import os
import shlex
from pathlib import Path
from typing import Any

from data.coco_split import files_below
from eval.commands import call, commit
from eval.tables.images import check_files, check_same_photographs
from eval.tables.paper import BPR, PACKAGE, RUNS, START, TABLES, Cell, Row, Table
from eval.tables.records import read_record, record_name
from sharpcontour.errors import InputError
from sharpcontour.io.files import read_json, save_results, write_whole

BODIES = {
    "shapes": {"R101": "resnet34", "X101": "resnet50"},
    "coco": {"R101": "resnet101", "X101": "resnext101_32x8d"},
}
SMALL = ("shapes", "photos")  # data sets of small models and short trainings
BPR_UPDATES = 600  # of 32 patches, on these: about as long as a training of the refiner alone
START_UPDATES = 6000  # of the training that gives all others on photographs their body
BESIDE = "2"  # px from the true boundary, where Table 11 looks at phi
DRAWS = 200  # of the validation images, for standard errors
MADE_BY = "made_by.json"  # in the folder of a training: its command, and the commit it was last run with


class Work:
    """Fills the cells of tables by the project's own commands.

    Args:
        args: the command line of scripts/reproduce.py.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.results = Path(args.results) / args.data
        self.records = self.results / "runs"
        self.runs = Path(args.runs) / args.data

    def check_data(self) -> None:
        """Make sure that the data set is there, and that earlier records are of the same photographs."""
        if self.args.root:
            check_files(self.args.data, Path(self.args.root))
        if self.args.lvis and not Path(self.args.lvis).is_file():
            raise InputError(f"{self.args.lvis}: no such file; scripts/prepare_data.py lvis says how to make it")
        if self.args.data == "photos":
            check_same_photographs(Path(self.args.root), self.results)

    def run(self, table: Table) -> None:
        """Train, evaluate and record everything that the rows of a table lack."""
        wanted = [(row, seed) for row in table.rows for seed in self.args.seeds if self._asked_for(row)]
        missing = [(row, seed) for row, seed in wanted if not self._is_complete(row.cell, seed)]
        if any(row.cell.refined_by for row, _ in missing) and any(s.startswith("data.") for s in self.args.overrides):
            raise InputError("--set data...: the image files for refine.py are those of the usual settings")
        print(f"{len(wanted) - len(missing)} of {len(wanted)} cells have a record in {self.records}", flush=True)
        for place, (row, seed) in enumerate(missing, 1):
            print(f"[{place} of {len(missing)}] {row.title}, seed {seed}", flush=True)
            self.fill(row.cell, seed)
        if "ms" in table.metrics and not self.args.only and self.times is None:
            self.time()
        if "refiner ms" in table.metrics and not self.args.only and not self.refiner_costs:
            self.time_refiners(table)

    def fill(self, cell: Cell, seed: int) -> None:
        """Measure a cell and keep its record."""
        for run in trainings(cell):
            self.train(run, seed)
        if cell.refined_by:
            scores = self.refine_results(cell, seed)
        elif cell.settings or cell.study or self.few_images:
            changed = ["--set", *cell.settings] if cell.settings else []
            scores = self.evaluate(self._folder(cell.run, seed), *changed, *(["--study"] if cell.study else []))
        else:
            metrics = self._metrics(cell.run, seed)
            scores = {kind: metrics[kind] for kind in ("coarse", "refined") if metrics.get(kind)}
        self._add_lvis(cell, seed, scores)
        made = self._made_by(cell.run, seed)
        made["command"] = described(cell, made["command"])
        if cell.refined_by == BPR:
            made["refiner"] = read_json(self._folder(cell.run, seed) / BPR / MADE_BY)
        elif cell.refined_by == PACKAGE:
            made["refiner"] = {"command": "scripts/refine.py", "commit": commit()}  # whose weights it has
        elif cell.refined_by:
            made["refiner"] = self._made_by(cell.refined_by, seed)
        save_results({**made, **scores}, self._record(cell, seed))

    def train(self, name: str, seed: int) -> None:
        """Train a run of :data:`RUNS`, and before it the run that it starts from, unless they are finished."""
        if RUNS[name].alone:
            self.train(RUNS[name].alone, seed)
        elif self.args.data == "photos" and name != START and not self._start.is_file():
            self.train(START, 0)
            keep_body(self._folder(START, 0), self._start)
        folder, command = self._folder(name, seed), self._training(name, seed)
        if self._metrics(name, seed):
            if (before := self._made_by(name, seed)["command"]) != command:
                print(f"kept: {folder}, trained by another command: {before}", flush=True)
            return
        begun = read_json(folder / MADE_BY)["command"] if any(folder.glob("checkpoints/step_*.pt")) else None
        if begun not in (None, command):
            raise InputError(f"{folder}: was begun by another command, {begun}; give that again, or remove the folder")
        save_results({"command": command, "commit": commit()}, folder / MADE_BY)
        call(["scripts/train.py", *self.train_arguments(name, seed), "--out", str(folder)], self.args.nproc)
        if not self._metrics(name, seed):
            raise InputError(f"{folder}: the training was interrupted; give the same command again")

    def train_arguments(self, name: str, seed: int) -> list[str]:
        """Command line of scripts/train.py for a run, without --out."""
        run, data = RUNS[name], self.args.data
        arguments = ["--model", run.model, *(["--refine"] if run.refine else []), "--data", data]
        settings = [f"train.seed={seed}", f"data.seed={seed}", *run.settings]
        if data != "shapes":
            arguments += ["--root", self.args.root]
        if data == "coco":
            arguments += ["--recipe", "coco_3x" if run.long else "coco_1x"]
        elif run.long:
            settings.append("train.iterations=6000")
        if run.body != "R50":
            settings.append(f"host.backbone.name={BODIES['coco' if data != 'shapes' else data][run.body]}")
        if run.alone:
            settings += [f"train.init_from={self._folder(run.alone, seed)}", "sharpcontour.train_host=false"]
            if data in SMALL and not any(setting.startswith("train.iterations=") for setting in run.settings):
                settings.append("train.iterations=1000")
        elif name == START:
            settings.append(f"train.iterations={START_UPDATES}")
        elif data == "photos":
            settings.append(f"host.backbone.weights={self._start}")
        return [*arguments, "--set", *settings, *self.args.overrides]

    def evaluate(self, checkpoint: Path, *options: str) -> dict[str, Any]:
        """Scores of a checkpoint, {"coarse": ..., "refined": ...}."""
        data = ["--root", self.args.root] if self.args.root else []
        return split(self._scored(["--checkpoint", str(checkpoint), *data, *options], self.args.nproc))

    def refine_results(self, cell: Cell, seed: int) -> dict[str, Any]:
        """Scores of a run's results as a file, before and after the refiner of another run (section 4.3)."""
        folder = self._folder(cell.run, seed)
        annotations, images = self._files("val", seed)
        before, after = folder / "results.json", folder / f"by_{cell.refined_by}.json"
        if not before.is_file() or before.stat().st_mtime < (folder / "metrics.json").stat().st_mtime:
            # Once: a file written anew would begin the refinement of each image anew.
            self.evaluate(folder, "--results-out", str(before))
        files = ["--results", str(before), "--images", str(images), "--annotations", str(annotations)]
        if cell.refined_by == BPR:
            refiner = ["scripts/bpr.py", "refine", "--checkpoint", str(self.train_bpr(folder, seed))]
        elif cell.refined_by == PACKAGE:
            refiner = ["scripts/refine.py"]
        else:
            refiner = ["scripts/refine.py", "--checkpoint", str(self._folder(cell.refined_by, seed))]
        call([*refiner, *files, "--out", str(after)])
        scores = {}
        for kind, path in (("coarse", before), ("refined", after)):
            scores[kind] = self._scored(["--results", str(path), "--annotations", str(annotations)])
            if self._with_lvis:
                own = ["--results", str(path), "--annotations", self.args.lvis, "--metrics", "lvis"]
                scores[kind].update(self._scored(own))
        return scores

    def train_bpr(self, folder: Path, seed: int) -> Path:
        """Train BPR for a run, on the run's own results on training images; returns its checkpoint."""
        trained, found = folder / BPR / "bpr.pt", folder / BPR / "train_results.json"
        if not trained.is_file():
            annotations, images = self._files("train", seed)
            own = ["--val-json", str(annotations), "--val-images", str(images), "--results-out", str(found)]
            call(["scripts/evaluate.py", "--checkpoint", str(folder), *own], self.args.nproc)
            files = ["--results", str(found), "--annotations", str(annotations), "--images", str(images)]
            budget = ["--iterations", str(BPR_UPDATES)] if self.args.data in SMALL else []
            training = ["scripts/bpr.py", "train", *files, "--out", str(trained), "--seed", str(seed), *budget]
            save_results({"command": shlex.join(training), "commit": commit()}, trained.with_name(MADE_BY))
            call(training)
        return trained

    def time(self) -> None:
        """Time all models, and Table 7's settings, in turns."""
        settings = [setting for row in TABLES[7].rows for setting in row.cell.settings]
        models = list(dict.fromkeys(RUNS[row.cell.run].model for row in TABLES[1].rows))
        turns = ["--repeats", "5", "--warmup", "1", "--json", str(self._times)]
        call(["scripts/benchmark.py", "--models", *models, "--vary", *settings, *turns])

    def time_refiners(self, table: Table) -> None:
        """Time what refines files, on the same detections of the first seed, and count its parameters."""
        seed, cells = self.args.seeds[0], [row.cell for row in table.rows if row.cell.refined_by]
        host = self._folder(cells[0].run, seed)
        paths = {c.refined_by: self._folder(c.refined_by, seed) for c in cells}
        if BPR in paths:
            paths[BPR] = host / BPR / "bpr.pt"
        if missing := [path for path in (host / "results.json", *paths.values()) if not path.exists()]:
            print(f"refiners are not timed: {missing[0]} is not there", flush=True)
            return
        annotations, images = self._files("val", seed)
        files = ["--results", str(host / "results.json"), "--annotations", str(annotations), "--images", str(images)]
        out = self.runs / f"costs.{os.getpid()}.json"
        turns = ["--repeats", "5", "--warmup", "1", "--json", str(out)]
        call(["scripts/benchmark.py", "--refiners", *map(str, paths.values()), *files, *turns])
        found = read_json(out)
        out.unlink()
        costs = {name: found["refiners"][str(path)] for name, path in paths.items()}
        save_results({"device": found["device"], "refiners": costs}, self._refiner_costs)

    @property
    def refiner_costs(self) -> dict[str, Any]:
        """What :meth:`time_refiners` measured, {} if it has not run."""
        return read_json(self._refiner_costs) if self._refiner_costs.is_file() else {}

    @property
    def times(self) -> dict[str, Any] | None:
        """What :meth:`time` measured, None if it has not run."""
        return read_json(self._times) if self._times.is_file() else None

    def _scored(self, options: list[str], processes: int = 1) -> dict[str, Any]:
        """The JSON of evaluate.py; in a file of this process, since several may work at once."""
        out = self.runs / f"scores.{os.getpid()}.json"
        errors = ["--bootstrap", str(DRAWS)] if self.few_images else []
        call(["scripts/evaluate.py", *options, *errors, "--json", str(out)], processes)
        found: dict[str, Any] = read_json(out)
        out.unlink()
        return found

    @property
    def _start(self) -> Path:
        """The body that all trainings on photographs begin from; kept with the records, which depend on it."""
        return self.results / "start.pt"

    @property
    def few_images(self) -> bool:
        """Whether the validation images are so few that gains need a standard error over them."""
        return bool(self.args.data == "photos")

    @property
    def _with_lvis(self) -> bool:
        return self.args.data == "coco" and bool(self.args.lvis)

    @property
    def _refiner_costs(self) -> Path:
        return self.results / "refiners.json"

    @property
    def _times(self) -> Path:
        return Path(self.args.results) / "time.json"

    def _asked_for(self, row: Row) -> bool:
        if self.args.data == "cityscapes" and row.cell.refined_by:
            print(f"not run: {row.title}: results of Cityscapes are refined by hand, see refine.py --help", flush=True)
            return False
        return not self.args.only or set(trainings(row.cell)) <= set(self.args.only)

    def _is_complete(self, cell: Cell, seed: int) -> bool:
        """Whether there is a record, with AP* where that is asked for; tells one made by another command."""
        path = self._record(cell, seed)
        if not path.is_file():
            return False
        record = read_record(path)
        if (before := record["command"]) != described(cell, self._training(cell.run, seed)):
            print(f"kept: {path}, made by another command: {before}", flush=True)
        found = record.get(cell.kind, {})
        return ("lvis" in found or not self._with_lvis) and ("replicates" in found or not self.few_images)

    def _record(self, cell: Cell, seed: int) -> Path:
        return self.records / record_name(cell, seed)

    def _folder(self, name: str, seed: int) -> Path:
        return self.runs / name / f"seed{seed}"

    def _metrics(self, name: str, seed: int) -> dict[str, Any]:
        """Scores of a training that has ended; empty before."""
        folder = self._folder(name, seed)
        if not (folder / "metrics.json").is_file():
            return {}
        found: dict[str, Any] = read_json(folder / "metrics.json")
        return found if found["step"] == read_json(folder / "config.json")["train"]["iterations"] else {}

    def _files(self, split: str, seed: int) -> tuple[Path, Path]:
        """Annotations and folder of the images of "train" or "val"; of shapes those that the seed trains on."""
        if self.args.data != "shapes":
            return files_below(self.args.root, self.args.data, split)
        root = self.runs / f"files_seed{seed}"
        annotations, images = files_below(root, "coco", split)
        if not annotations.is_file():
            call(["scripts/prepare_data.py", "shapes", "--root", str(root), "--seed", str(seed)])
        return annotations, images

    def _add_lvis(self, cell: Cell, seed: int, scores: dict[str, Any]) -> None:
        """Add AP* to the other scores."""
        if not self._with_lvis or cell.refined_by:
            return  # refine_results() has its own way
        # LVIS names its images below COCO's root, as val2017/000000000139.jpg.
        files = ["--val-json", self.args.lvis, "--val-images", self.args.root, "--metrics", "lvis"]
        settings = ["--set", *cell.settings] if cell.settings else []
        for kind, found in self.evaluate(self._folder(cell.run, seed), *files, *settings).items():
            scores[kind].update(found)

    def _training(self, name: str, seed: int) -> str:
        """The command line that a user types for a training."""
        return shlex.join(["torchrun", "scripts/train.py", *self.train_arguments(name, seed)])

    def _made_by(self, name: str, seed: int) -> dict[str, Any]:
        """Command, commit and budget of a training."""
        folder = self._folder(name, seed)
        known = read_json(folder / MADE_BY) if (folder / MADE_BY).is_file() else {}
        config = read_json(folder / "config.json")["train"]
        budget = {key: config[key] for key in ("iterations", "images_per_batch")}
        return {"command": "unknown", "commit": "unknown", **known, **budget}


def trainings(cell: Cell) -> list[str]:
    """The runs that a cell needs, as :data:`RUNS` has them: its own, and that of another refiner."""
    return [name for name in (cell.run, cell.refined_by) if name in RUNS]


def described(cell: Cell, training: str) -> str:
    """How a cell is made, in words and commands, after the command ``training`` has trained its run."""
    if cell.settings:
        training += f"; then {shlex.join(['evaluate.py', '--set', *cell.settings])}"
    if cell.refined_by:
        own = {BPR: "bpr.py", PACKAGE: "refine.py"}  # without another run
        training += f"; then {own.get(cell.refined_by, f'refine.py with {cell.refined_by}')}"
    return training


def keep_body(folder: Path, out: Path) -> None:
    """Keep the body of a trained model as weights to begin from, in half precision but for the norms' statistics."""
    import torch

    from models.loading import find_checkpoint

    _, state = find_checkpoint(folder)
    prefix = "backbone.body."
    body = {key.partition(prefix)[2]: value for key, value in state["model"].items() if prefix in key}
    kept = {
        key: value if "running" in key or not value.is_floating_point() else value.half() for key, value in body.items()
    }
    data = io.BytesIO()
    torch.save({"model": {prefix + key: value for key, value in kept.items()}, "step": state["step"]}, data)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(data.getvalue(), out)


def split(scores: dict[str, Any]) -> dict[str, Any]:
    """Split the JSON of evaluate.py into the host's scores and the refined ones."""
    coarse, drawn, studied = scores.pop("coarse", None), scores.pop("replicates", {}), scores.pop("study", None)
    if studied:
        phi = studied["phi"]
        scores["phi"] = {"calibration_error": 100 * phi["calibration_error"]}
        scores["phi"] |= {key: 100 * phi[key][BESIDE] for key in ("sharpness", "accuracy") if BESIDE in phi[key]}
    kinds = {"coarse": scores} if coarse is None else {"coarse": coarse, "refined": scores}
    return {kind: found | ({"replicates": drawn[kind]} if drawn else {}) for kind, found in kinds.items()}
