"""Train a model, with or without SharpContour behind it, and evaluate it.

    # one process, on the built-in shapes
    torchrun scripts/train.py --model dance --refine
    # eight processes on one machine; with --max-restarts it goes on by itself after a failure
    torchrun --nproc-per-node 8 --max-restarts 3 scripts/train.py --model dance --refine --data coco --root /data/coco
    # two machines, the same command on both; HOST is one of them; for --max-restarts there, first
    # export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
        scripts/train.py --model dance --refine --data coco --root /data/coco
    # an interrupted run goes on when its command is given again; or it begins from any checkpoint, in another folder
    torchrun scripts/train.py --model dance --refine --out runs/b --resume runs/a/checkpoints/step_00010000.pt
    # your own data in COCO format; the classes are read from the file
    torchrun scripts/train.py --model dance --refine --train-json A.json --train-images DIR \\
        --val-json B.json --val-images DIR

Plain ``python scripts/train.py ...`` works too, as one process. The folder of a run holds config.json, log.jsonl,
metrics.json, checkpoints/, TensorBoard events and pictures/.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import DATASETS, DatasetLike, build_dataset
from data.categories import check_same_classes
from engine.config import Config, apply_overrides, describe, refuse_unread
from engine.lock import TrainingLock
from engine.recipes import RECIPES
from models.zoo import MODELS, build_model
from sharpcontour.errors import InputError
from sharpcontour.io.files import check_writable, remove_temporary, write_whole
from sharpcontour.io.plain import to_dict

if TYPE_CHECKING:  # --help and wrong use need no torch: what does is imported by the functions that use it
    from engine.distributed import World
    from engine.trainer import Batches

OWN_HINT = (
    "without --recipe the schedule is COCO's: a hundred thousand images, ImageNet weights, a GPU; docs/train.md says "
    "what suits few images"
)
COCO_HINT = "for COCO: --data coco --root DIR (with annotations/, train2017/ and val2017/)"


def main() -> int:
    """The whole run, top to bottom; 0 also after a signal, since the run is saved then."""
    args = parse_arguments()
    config = resolve(args)
    if args.show_config:
        print(describe(config))
        return 0
    from data.loader import build_loader
    from engine import distributed
    from engine.checkpoint import fingerprint
    from engine.evaluation import Evaluation
    from engine.logging import say
    from engine.start import begin, image_ids
    from engine.trainer import Trainer, images_per_pass
    from models.loading import checkpoints
    from models.speed import lay_out_weights

    world = distributed.start(config.train.device)
    announce(config, args, world)
    per_pass = images_per_pass(config.train, world)
    folder = folder_of(args, config)
    lock = prepare_folder(folder, args, world)

    # Categories come from the validation set; the model must know their number, the training set what the model needs.
    val_set = build_dataset(config.data, "val")
    distributed.seed_all(config.train.seed)
    model = build_model(config.host, len(val_set.categories), config.sharpcontour if config.refine else None)
    train_set = build_dataset(config.data, "train", prepare=model.target_builder)
    files = config.data.train_json or "the training annotations", config.data.val_json or "those for validation"
    check_same_classes(train_set.categories, val_set.categories, files)
    for report in (train_set.report(), val_set.report()):
        if report:
            say(world, report)
    check_images(val_set, config, world)
    updates, batch = config.train.iterations, config.train.images_per_batch
    passes = updates * batch / len(train_set)
    say(
        world,
        f"{len(train_set)} training images; {updates} updates of {batch} go over them {float(f'{passes:.3g}'):g} times",
    )
    lay_out_weights(model.to(world.device))

    def batches(done: int) -> Batches:
        """This process's batches without end, after the first ``done``."""
        yield from build_loader(
            train_set,
            per_pass,
            training=True,
            seed=config.train.seed,
            rank=world.rank,
            world_size=world.size,
            workers=config.data.workers,
            start=(0, done),
        )

    plain = to_dict(config)
    trainer = Trainer(
        model,
        config.train,
        world,
        folder,
        batches,
        Evaluation(model, val_set, config, world, folder),
        {"config": plain, "categories": train_set.categories, "images": fingerprint(image_ids(train_set))},
        replaced=getattr(train_set, "replaced", list),
    )
    begin(trainer, args.resume, plain, train_set)
    if world.main:  # not before: a refused start must leave the one of the run that is there
        write_whole(json.dumps(plain, indent=1).encode() + b"\n", folder / "config.json")
    finished = trainer.fit()
    if unread := trainer.replaced():
        say(world, f"warning: {unread} unreadable training images were replaced by others; {train_set.report()}")
    if finished and world.main:  # the others may have no such folder
        made = [checkpoints(folder / "checkpoints")[0], folder / "metrics.json"]
        made += [folder / "pictures"] if any(folder.glob("pictures/*")) else []
        say(world, f"done: {', '.join(map(str, made))}")
    distributed.stop()
    if lock is not None:
        lock.release()
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults and units."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", choices=sorted(MODELS), default="dance", help="host model (default: dance)")
    add("--refine", action="store_true", help="put SharpContour behind the host (default: the host alone)")
    add("--data", choices=tuple(DATASETS), help="data set (default: shapes; coco with --root or annotations)")
    add("--root", metavar="DIR", help="folder of the data set; prepare_data.py tells how it looks")
    add("--train-json", metavar="FILE", help="your own training annotations in COCO format")
    add("--train-images", metavar="DIR", help="folder of their images")
    add("--val-json", metavar="FILE", help="your own validation annotations in COCO format")
    add("--val-images", metavar="DIR", help="folder of their images")
    add(
        "--recipe",
        choices=sorted(RECIPES),
        help="complete configuration (default: shapes, cityscapes, photos, or coco_1x)",
    )
    _cli.add_set(
        parser,
        "change single values, e.g. train.images_per_batch=8 data.workers=4; --show-config prints all keys",
    )
    add("--show-config", action="store_true", help="print the whole configuration, train nothing")
    add(
        "--out",
        metavar="DIR",
        help="folder of the run (default: runs/MODEL_DATA in the checkout, with _refine after MODEL)",
    )
    add(
        "--resume",
        metavar="auto|PATH|never",
        default="auto",
        help="auto: go on from the newest checkpoint in --out, if any (default); PATH: begin from this checkpoint or "
        "run, and go on from the newest in --out once there is one; never: start anew, without checkpoints in --out, "
        "where nothing goes on after a failure either",
    )
    return parser.parse_args()


def resolve(args: argparse.Namespace) -> Config:
    """The configuration that the command line asks for."""
    own = {key: getattr(args, key) for key in ("train_json", "train_images", "val_json", "val_images")}
    missing = [f"--{key.replace('_', '-')}" for key, value in own.items() if not value]
    if 0 < len(missing) < 4 and not args.root:
        raise InputError(f"your own data needs all four options; {', '.join(missing)} missing")
    name: Any = args.data or ("coco" if args.root or len(missing) < 4 else "shapes")
    if name == "shapes" and (args.root or len(missing) < 4):
        raise InputError("--data shapes is drawn on the fly; leave out --root, --train-... and --val-...")
    if name != "shapes" and len(missing) == 4 and not args.root:
        raise InputError(
            f"--data {name} needs --root DIR, or --train-json, --train-images, --val-json and --val-images"
        )
    usual = name if name in ("shapes", "cityscapes", "photos") else "coco_1x"
    config = RECIPES[args.recipe or usual](args.model, args.refine)
    config.data.name = name
    if args.root:
        config.data.root = args.root
    for key, value in own.items():
        if value:
            setattr(config.data, key, value)
    apply_overrides(config, args.overrides)
    check_read(config, [item.partition("=")[0] for item in args.overrides])
    if name == "shapes":  # the drawn images are used as they are, so theirs is the size that the model knows
        config.data.test_short_side = config.data.shapes_size
        config.data.test_max_side = max(config.data.test_max_side, config.data.shapes_size)
    return config


def check_read(config: Config, keys: list[str]) -> None:
    """Refuse settings that nothing will read."""
    name = config.data.name
    read = getattr(DATASETS[name], "settings", None)
    for key in keys:
        section, _, field = key.partition(".")
        if section == "data" and read is not None and field not in read:
            raise InputError(f"--set {key}: the data set {name} has no use for it; it reads {', '.join(sorted(read))}")
        if key in ("data.short_sides", "data.max_side", "data.resize") and config.data.object_crop:
            raise InputError(f"--set {key}: data.object_crop has no use for it; set data.object_crop=0 as well")
        if section == "sharpcontour" and not config.refine:
            raise InputError(f"--set {key}: there is no refiner without --refine")
        if key in ("train.steps", "train.decay") and config.train.schedule == "cosine":
            raise InputError(f"--set {key}: train.schedule=cosine has no use for it; set train.schedule=step as well")
        if key.startswith("sharpcontour.transformer.") and config.sharpcontour.classifier.output != "polygon":
            raise InputError(f"--set {key}: only sharpcontour.classifier.output=polygon has a transformer")
    refuse_unread(keys, config.sharpcontour.classifier.output)


def announce(config: Config, args: argparse.Namespace, world: World) -> None:
    """What will be trained, on what, and how the learning rate came about."""
    import torch

    from engine.logging import say

    train = config.train
    if config.data.name == "shapes":
        say(world, f"training on the built-in shapes, drawn on the fly and small enough for a CPU; {COCO_HINT}")
    if config.data.train_json and not args.recipe and config.data.name == "coco":
        say(world, OWN_HINT)
    if 2 * train.warmup_iterations > train.iterations:
        say(
            world,
            f"warning: the warm-up takes {train.warmup_iterations} of {train.iterations} updates, at rates below "
            f"the full one; set train.warmup_iterations={train.iterations // 10}",
        )
    say(
        world,
        f"model {config.model}{' + SharpContour' if config.refine else ''}, {world.size} x {world.device.type}, "
        f"torch {torch.__version__}",
        f"learning rate {train.base_lr * train.images_per_batch / train.reference_batch:g} = {train.base_lr:g} x "
        f"{train.images_per_batch}/{train.reference_batch} images, after {train.warmup_iterations} updates of warm-up",
        "configuration (--set KEY=VALUE changes it):",
        describe(config),
    )


def folder_of(args: argparse.Namespace, config: Config) -> Path:
    """Where the run is kept."""
    name = f"{config.model}{'_refine' if config.refine else ''}_{config.data.name}"
    folder = Path(args.out) if args.out else _cli.ROOT / "runs" / name
    if str(folder) != str(folder).encode("utf-8", "replace").decode():
        raise InputError(f"--out {folder}: TensorBoard cannot write to a name that is not UTF-8; choose another")
    return folder


def prepare_folder(folder: Path, args: argparse.Namespace, world: World) -> TrainingLock | None:
    """Make the folder of the run and see that it can be written and is nobody else's, before anything takes time."""
    from engine import distributed
    from models.loading import checkpoints

    lock = None
    if world.main:
        lock = TrainingLock(folder)
        for stray in (folder, folder / "checkpoints"):
            remove_temporary(stray)
        if args.resume == "never" and checkpoints(folder / "checkpoints"):
            raise InputError(f"{folder} holds checkpoints; for --resume never choose another --out or remove them")
        for name in ("config.json", "checkpoints/step_00000000.pt", "pictures/any_1.png"):
            check_writable(folder / name)
    distributed.barrier()
    return lock


def check_images(val_set: DatasetLike, config: Config, world: World) -> None:
    """Tell at the start which validation images are not there, and not after the whole training."""
    missing = val_set.missing() if world.main and hasattr(val_set, "missing") else []
    if missing:
        raise InputError(
            f"{missing[0]}: no such image; {len(missing)} of the {len(val_set)} validation images are missing: check "
            f"{'--val-images' if config.data.val_images else '--root'}"
        )


if __name__ == "__main__":
    _cli.run(main)
