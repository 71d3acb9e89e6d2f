"""Score a trained model, or a file of detections: mask AP, Boundary AP, AP* on LVIS' annotations, Cityscapes' AP.

    # a checkpoint (or the folder of a run), on the validation images it was trained with
    python scripts/evaluate.py --checkpoint runs/dance_refine_shapes --json metrics.json
    # on other images in COCO format with the same categories; the detections are kept as COCO results
    python scripts/evaluate.py --checkpoint CKPT --val-json B.json --val-images DIR --results-out R.json
    # on eight GPUs
    torchrun --nproc-per-node 8 scripts/evaluate.py --checkpoint CKPT --data coco --root /data/coco
    # with other settings of the refiner than it was trained with
    python scripts/evaluate.py --checkpoint CKPT --set sharpcontour.evolution.iterations=4
    # anymask, which is given masks: worse masks of all objects before and after; evaluate_masks.py has more of it
    python scripts/evaluate.py --checkpoint runs/anymask_refine_coco --val-json B.json --val-images DIR
    # also refine contours of known quality, and test the point classifier by its distance from the boundary
    python scripts/evaluate.py --checkpoint CKPT --study
    # COCO results of any model; both files may be .json or .json.gz
    python scripts/evaluate.py --results R.json --annotations GT.json
    # AP*: the detections of COCO's validation images against LVIS' annotations of them (prepare_data.py lvis)
    python scripts/evaluate.py --results R.json --annotations lvis_val_cocofied.json --metrics lvis
    # Cityscapes' own format: text files and PNG masks against gtFine/val
    python scripts/evaluate.py --results FOLDER --annotations gtFine/val --metrics cityscapes

All numbers are in percent. S, M and L are objects up to 32 x 32, up to 96 x 96, and larger, in pixels: annotations by
their "area", detections by the pixels of their mask. (pycocotools takes the area of their "bbox" where they have one:
its AP is the same, its S, M and L are not.) The file of --json has all in full precision, {"segm": {"AP": ...},
"boundary": {...}}, null where there is no object to find; with a refined model those before refinement are under
"coarse". Of --checkpoint's data, images that cannot be read are counted and named at the end, and in the file of --json
under "left_out"; the objects on them count as missed.

The last line of a refined model: contours; restored, those put back because refinement did harm; for each iteration
flip_share, vertices that found a change of side, and sharpness, the mean of |phi - 0.5|; and the share of contours that
cross themselves before and after.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import DATASETS, DataConfig, DatasetLike, build_dataset
from data.annotations import Category
from data.categories import same_class
from data.cityscapes import convert
from engine.config import change_refiner
from eval.boundary import DILATION_RATIO
from eval.checks import GroundTruth
from eval.cityscapes import read_submission
from eval.metrics import METRICS, USUAL, evaluate_detections
from eval.results import format_categories, format_errors, format_summary, format_table
from sharpcontour.errors import InputError
from sharpcontour.io.files import check_writable, read_json, save_results
from sharpcontour.io.plain import from_dict

if TYPE_CHECKING:  # --help and --results need no torch: what does is imported by the functions that run a model
    from engine.distributed import World
    from models import Predictor


def main() -> int:
    """Score a file of results, or run a checkpoint and score that."""
    args = parse_arguments()
    check(args)
    if args.results:
        evaluate_results(args)
    else:
        evaluate_checkpoint(args)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults and units."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", metavar="CKPT", help="checkpoint of scripts/train.py, or the folder of a run")
    what.add_argument(
        "--results",
        metavar="R.json",
        help="COCO results to score, with --annotations; needs no model. Or a folder in Cityscapes' own format",
    )
    add = parser.add_argument
    add("--annotations", metavar="GT.json", help="COCO annotations for --results, or gtFine/val of Cityscapes")
    add(
        "--data",
        choices=tuple(DATASETS),
        help="data set for --checkpoint (default: the one of its training; coco where that was shapes and --root or "
        "--val-... name files)",
    )
    add("--root", metavar="DIR", help="folder of the data set (default: as in training)")
    add("--val-json", metavar="FILE", help="your own annotations in COCO format (default: as in training)")
    add("--val-images", metavar="DIR", help="folder of their images (default: as in training)")
    add(
        "--metrics",
        nargs="+",
        choices=METRICS,
        default=list(USUAL),
        help="segm: mask AP; boundary: Boundary AP (default: both); lvis: AP* by LVIS' rules; cityscapes: AP and AP50 "
        "as its official tool computes them",
    )
    add(
        "--dilation-ratio",
        type=float,
        metavar="SHARE",
        default=DILATION_RATIO,
        help=f"width of Boundary AP's band, a share of the image diagonal (default: {DILATION_RATIO})",
    )
    _cli.add_refiner_set(parser, "of --checkpoint's refiner: ")
    add("--json", metavar="OUT", help="write the numbers to this file")
    add("--results-out", metavar="FILE", help="write the detections of --checkpoint to this file, as COCO results")
    add("--per-category", action="store_true", help="show the AP of every category too")
    add("--study", action="store_true", help="also refine contours of known quality (needs a refined model)")
    add(
        "--bootstrap",
        type=int,
        default=0,
        metavar="N",
        help="standard errors over images, of AP and of its change, from N draws of the images (200 will do)",
    )
    add("--batch", type=int, metavar="N", help="images of one forward pass (default: 1)")
    add("--workers", type=int, metavar="N", help="loader processes (default: as in training)")
    add(
        "--processes",
        type=int,
        metavar="N",
        help="at most, for the boundaries of --results; of few masks one makes them all (default: one a core)",
    )
    _cli.add_device(parser)
    _cli.add_speed(parser)
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    """Refuse wrong use before anything takes time."""
    if args.results and not args.annotations:
        raise InputError("--results needs the ground truth too: --annotations GT.json")
    own = [f"--{key.replace('_', '-')}" for key in ("data", "root", "val_json", "val_images") if getattr(args, key)]
    if args.results and (own or args.results_out):
        raise InputError(f"{(*own, '--results-out')[0]} goes with --checkpoint; --results needs --annotations only")
    if args.results and args.overrides:
        raise InputError("--set changes the refiner of --checkpoint; --results has none")
    if args.checkpoint and args.annotations:
        raise InputError("--annotations goes with --results; with --checkpoint give --val-json and --val-images")
    if args.results and _cli.is_faster(args):
        raise InputError("--amp, --channels-last and --tf32 are for the model of --checkpoint; --results has none")
    if args.results and (args.study or args.batch is not None or args.workers is not None):
        raise InputError("--study, --batch and --workers are for the model of --checkpoint; --results has none")
    if args.checkpoint and args.processes is not None:
        raise InputError("--processes is for the boundaries of --results; leave it out with --checkpoint")
    args.batch = 1 if args.batch is None else args.batch
    args.processes = args.processes if args.processes is not None else os.cpu_count() or 1
    if min(args.batch, args.processes) < 1 or min(args.workers or 0, args.bootstrap) < 0:
        raise InputError("--batch and --processes must be 1 or more, --workers and --bootstrap 0 or more")
    if args.bootstrap and not set(args.metrics) <= set(USUAL):
        raise InputError("--bootstrap is for the metrics segm and boundary")
    read = (args.results, args.annotations, args.checkpoint, args.val_json)
    for path, other in ((args.json, args.results_out), (args.results_out, args.json)):
        if path:
            check_writable(path, (*read, other))


def evaluate_results(args: argparse.Namespace) -> None:
    """Score a file of detections."""
    annotations = Path(args.annotations)
    data = convert(annotations, progress=True) if annotations.is_dir() else read_json(annotations)
    truth = GroundTruth(data, args.annotations)
    found = read_submission(args.results, truth) if Path(args.results).is_dir() else read_json(args.results)
    how = (args.metrics, args.dilation_ratio, args.results, args.processes, args.bootstrap)
    scores = evaluate_detections(truth, found, *how)
    numbers: dict[str, Any] = {metric: values.summary for metric, values in scores.items()}
    categories = {metric: values.per_category for metric, values in scores.items()}
    drawn = {metric: values.replicates for metric, values in scores.items() if values.replicates}
    if args.json:  # before anything is printed, which fails where a pipe has ended
        more = ({"per_category": categories} if args.per_category else {}) | ({"replicates": drawn} if drawn else {})
        save_results(numbers | more, args.json)
    print(format_table({"results": numbers}))
    if args.per_category:
        print(format_categories(categories))
    if drawn:
        print(format_errors({"results": drawn}))
    with_some = len({one["image_id"] for one in found})
    print(f"{len(found)} detections on {with_some} of {len(truth.sizes)} images")


def evaluate_checkpoint(args: argparse.Namespace) -> None:
    """Run a trained model over a data set and score it, before and after refinement."""
    from engine import distributed
    from models import load_model
    from models.speed import faster
    from sharpcontour.refined_model import RefinedModel

    world = distributed.start(args.device)
    predictor = load_model(args.checkpoint, world.device)
    if args.study and predictor.finds and not isinstance(predictor.model, RefinedModel):
        raise InputError("--study needs a model that was trained with --refine")
    if args.amp != "none" and not predictor.finds:
        raise InputError("--amp: anymask chooses the precision of its networks itself; leave it out")
    change_refiner(predictor.model, args.overrides)
    config = data_config(args, predictor, world)
    dataset = build_dataset(config, "val")
    check_categories(dataset.categories, predictor, config.val_json or config.root or config.name)
    with faster(predictor.model, world.device, **_cli.speed_of(args)):
        if predictor.finds:
            evaluate_found(args, predictor, dataset, config, world)
        else:
            evaluate_given(args, predictor, dataset, world)
    distributed.stop()


def evaluate_found(
    args: argparse.Namespace, predictor: Predictor, dataset: DatasetLike, config: DataConfig, world: World
) -> None:
    """Score what a model finds, before and after refinement."""
    from data.loader import build_loader
    from engine.logging import say
    from eval.diagnostics.study import format_study
    from eval.inference import evaluate_model

    workers = config.workers if args.workers is None else args.workers
    result = evaluate_model(
        predictor.model,
        dataset,
        build_loader(dataset, args.batch, training=False, rank=world.rank, world_size=world.size, workers=workers),
        world.device,
        metrics=args.metrics,
        dilation_ratio=args.dilation_ratio,
        results_path=args.results_out,
        category_ids=predictor.category_ids,
        bootstrap=args.bootstrap,
    )
    final = "refined" if "refined" in result else "coarse"
    if args.json and world.main:
        before = {"coarse": result["coarse"]} if final == "refined" else {}
        categories = {"per_category": result["per_category"][final]} if args.per_category else {}
        drawn = {"replicates": result["replicates"]} if args.bootstrap else {}
        left_out = {"left_out": result["left_out"]} if result["left_out"] else {}
        speed = {"speed": _cli.speed_of(args)} if _cli.is_faster(args) else {}
        scores = result[final] | before | categories | drawn | left_out | speed
        save_results(scores, args.json)
    say(world, format_table(result))
    if args.per_category:
        say(world, format_categories(result["per_category"][final]))
    if args.bootstrap:
        say(world, format_errors(result["replicates"]))
    say(world, format_summary(result))
    if args.study and world.main:
        found = study(predictor, config)
        if args.json:
            save_results(scores | {"study": found}, args.json)
        say(world, format_study(found))


def evaluate_given(args: argparse.Namespace, predictor: Predictor, dataset: DatasetLike, world: World) -> None:
    """Refine worse masks of the annotated objects: what a model that is given masks is judged by."""
    from engine.logging import say
    from eval.degraded import evaluate_degraded, format_degraded

    of_detections = {
        "--results-out": args.results_out,
        "--study": args.study,
        "--per-category": args.per_category,
        "--bootstrap": args.bootstrap,
        "--metrics": args.metrics != list(USUAL),
        "--dilation-ratio": args.dilation_ratio != DILATION_RATIO,
        "--batch": args.batch != 1,
        "--workers": args.workers is not None,
    }
    if given := [option for option, used in of_detections.items() if used]:
        raise InputError(f"this model detects nothing, so {', '.join(given)} would change nothing; leave it out")
    result = evaluate_degraded(predictor, dataset, progress=world.main)
    if args.json and world.main:
        save_results(result, args.json)
    say(world, format_degraded(result))


def study(predictor: Predictor, config: DataConfig) -> dict[str, Any]:
    """Refine contours of known quality on the validation images at test size, see ``eval/diagnostics/study.py``."""
    import torch

    from eval.diagnostics.samples import annotated_samples
    from eval.diagnostics.study import refinement_study

    dataset = build_dataset(config.at_test_size(), "val")
    samples = annotated_samples(dataset, len(dataset), "study")
    label_of = torch.tensor([predictor.category_ids.index(k) for k in dataset.category_ids])  # the model may know more
    targets = ((s["image"], s["target"]) for s in samples)
    triples = ((image, t["masks"].dense(*t["size"]).numpy(), label_of[t["labels"]]) for image, t in targets)
    model: Any = predictor.model
    return refinement_study(model, triples)


def data_config(args: argparse.Namespace, predictor: Predictor, world: World) -> DataConfig:
    """The data that the model was trained with, changed by what the command line says."""
    from engine.logging import say

    config = from_dict(DataConfig, predictor.config["data"], "data.")
    own = args.root or args.val_json or args.val_images
    if args.data == "shapes" and own:
        raise InputError("--data shapes is drawn on the fly; leave out --root, --val-json and --val-images")
    if args.data:
        config.name = args.data
    elif own and config.name == "shapes":
        config.name = "coco"
        say(world, "trained on shapes; the files given are read as --data coco")
    if args.root:
        config.root, config.val_json, config.val_images = args.root, "", ""
    config.val_json = args.val_json or config.val_json
    config.val_images = args.val_images or config.val_images
    return config


def check_categories(categories: list[Category], predictor: Predictor, where: str) -> None:
    """The model must know the data set's categories, by id and name: else their ids would be mixed up."""
    ours = dict(zip(predictor.category_ids, predictor.class_names, strict=True))
    missing = [
        f"{c['id']} {c['name']}"
        for c in categories
        if c["id"] not in ours or not same_class({"id": c["id"], "name": ours[c["id"]]}, c)
    ]
    if missing:
        extra = sorted(ours.items() - {(c["id"], c["name"]) for c in categories})
        raise InputError(
            f"{where}: its categories are not those of the model; only in the data: {', '.join(missing[:5])}; only in "
            f"the model: {', '.join(f'{k} {name}' for k, name in extra[:5]) or '-'}; use annotations with the model's "
            "categories"
        )


if __name__ == "__main__":
    _cli.run(main)
