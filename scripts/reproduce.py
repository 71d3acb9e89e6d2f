"""The tables of the paper by one command: runs or resumes what a table needs, then paper | ours | difference.

    python scripts/reproduce.py --table 1 3 4 9                      # on the built-in shapes, hours on a CPU
    python scripts/reproduce.py --table 1 --seeds 0 1 2              # mean and range of three trainings
    python scripts/reproduce.py --table 1 --show                     # only what has been measured so far
    python scripts/reproduce.py --table 1 --data photos --root DIR   # of train.json, val.json and images/, hours too
    python scripts/reproduce.py --table 1 --data coco --root /data/coco --nproc 8 --lvis lvis_val_cocofied.json
    python scripts/reproduce.py --table 2 --data cityscapes --root /data/cityscapes --nproc 8

Every cell leaves a record, results/DATA/runs/NAME.json, with its command, commit and budget; a cell that has one is not
run again, whatever --set says, nor is a finished training: remove the file, or the training's folder. results/ and
runs/ are looked for in the folder you are in. The repository's results/ holds our records; --results DIR begins with
none, and your own photographs need it, with --runs DIR. A cell without a record says "not run". A training that was
interrupted goes on when the command is given again. Tables are written as tableN.md and tableN.json, ablations also as
tableN.png. A README.md in the folder of results gets those of photographs and shapes side by side between
"<!-- table N -->" and "<!-- end -->", where it has these.

COCO begins from torchvision's ImageNet weights and has the recipes coco_1x and coco_3x; AP* needs --lvis. On shapes and
photographs the models are small; on shapes they begin from random weights, on photographs all from the body of one Mask
R-CNN that was trained there before them (run "start", kept as photos/start.pt beside the records). On shapes the larger
backbones of Table 6 are resnet34 and resnet50 instead of R101 and X101. Milliseconds are of R50 at 800x1333 with random
weights and 100 detections, whatever --data is; they are measured once, all models in turns, into time.json beside the
records (remove it to measure on this machine). The refiners of Table 10 are timed on the detections of the data itself,
into refiners.json.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse

from eval import pictures
from eval.pictures.plot import plot
from eval.tables.page import update_page
from eval.tables.paper import RUNS, TABLES, Table
from eval.tables.records import compare, curves, markdown
from eval.tables.work import Work, trainings
from sharpcontour.errors import InputError
from sharpcontour.io.files import save_results, write_whole


def main() -> int:
    """Table by table: run what is missing, then write what there is."""
    args = parse_arguments()
    work = Work(args)
    if args.show and not work.results.is_dir():
        raise InputError(f"{work.results}: no such folder, so there is nothing to show; see --results and --data")
    if not args.show:
        work.check_data()
    for number in args.table:
        table = TABLES[number]
        if not args.show:
            work.run(table)
        write(number, table, work)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--table",
        nargs="+",
        type=int,
        choices=sorted(TABLES),
        required=True,
        metavar="N",
        help="1 to 9, or 10: other refiners, 11: what makes phi sure, 12: the package's refiner",
    )
    add("--data", choices=("shapes", "photos", "coco", "cityscapes"), default="shapes", help="default: shapes")
    add("--root", metavar="DIR", help="folder of the data set")
    add("--lvis", metavar="FILE", help="LVIS' annotations of COCO's validation images (prepare_data.py lvis), for AP*")
    add("--seeds", nargs="+", type=int, default=[0], metavar="S", help="a training for each (default: 0)")
    add("--only", nargs="+", choices=sorted(RUNS), metavar="RUN", help=f"of these runs alone: {', '.join(RUNS)}")
    add("--show", action="store_true", help="run nothing, only make the tables anew from the records there are")
    add("--nproc", type=int, default=1, metavar="N", help="processes of a training (default: 1)")
    _cli.add_set(parser, "for all trainings, see train.py")
    add("--runs", metavar="DIR", default="runs/reproduce", help="folder of the trainings (default: %(default)s)")
    add("--results", metavar="DIR", default="results", help="folder of records and tables (default: %(default)s)")
    args = parser.parse_args()
    used = {name for n in args.table for row in TABLES[n].rows for name in trainings(row.cell)}
    if args.only and not used & set(args.only):
        raise InputError(f"--only {' '.join(args.only)}: these tables are made of {', '.join(sorted(used))}")
    if args.data != "shapes" and not args.root and not args.show:
        raise InputError(f"--data {args.data} needs --root DIR")
    if args.data == "shapes" and args.root:
        raise InputError("--data shapes is drawn on the fly; leave out --root")
    if args.lvis and args.data != "coco":
        raise InputError("--lvis has other annotations of COCO's images, so it goes with --data coco")
    if args.data in ("cityscapes", "photos") and 6 in args.table:
        raise InputError(f"Table 6 is on COCO: its schedule and bodies mean nothing on {args.data}")
    if args.data == "shapes" and 12 in args.table:
        raise InputError("Table 12 is on photographs, which the package's refiner learned from; see --data")
    return args


def write(number: int, table: Table, work: Work) -> None:
    """Write a table to the screen and to files."""
    times, costs = work.times, work.refiner_costs
    lines = compare(table, work.records, times, costs.get("refiners"))
    about = f"Paper: {'Cityscapes' if number == 2 else 'COCO val2017'}. Ours: {work.args.data}."
    if any(line[metric]["gain_error"] is not None for line in lines for metric in table.metrics):
        about += f" ± is the standard error of a gain {'over the validation images and, ' if work.few_images else ''}"
        about += (
            "of several seeds, over trainings; a gain whose interval of 95 % has 0 in it (Student's, so wide for few "
            "seeds) is called none. Of one seed and two trainings ± lacks their scatter: none is not said."
        )
    if "ms" in table.metrics and times is not None:
        about += f" Milliseconds of ours: {times['device']}."
    if "refiner ms" in table.metrics and costs:
        about += f" Refiners were timed on {costs['device']}; parameters in millions, of all that a refiner runs."
    text = markdown(number, table, lines, about)
    print(text)
    write_whole(text.encode(), work.results / f"table{number}.md")
    save_results({"table": number, "title": table.title, "rows": lines}, work.results / f"table{number}.json")
    update_page(work.results.parent / "README.md", number)
    if table.curves and any(line["AP"]["ours"] is not None for line in lines):
        pictures.save(work.results / f"table{number}.png", plot(curves(table, lines), "AP"))


if __name__ == "__main__":
    _cli.run(main)
