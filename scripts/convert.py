"""Turn weights of other projects into a checkpoint of this one.

    python scripts/convert.py --from torchvision maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth mask_rcnn.pt
    python scripts/convert.py --from detectron2 model_final_f10217.pkl mask_rcnn.pt
    python scripts/convert.py --from adelaidet CondInst_MS_R_50_1x.pth condinst.pt
    python scripts/convert.py --from dance Dance_R_50_3x.pth dance.pt
    # of the rivals: PointRend (told from Mask R-CNN by its names) and RefineMask
    python scripts/convert.py --from detectron2 model_final_edd263.pkl pointrend.pt
    python scripts/convert.py --from refinemask r50-coco-1x.pth refinemask.pt
    # ImageNet weights that Detectron2's models begin from (R-50.pkl, ...), for host.backbone.weights
    python scripts/convert.py --from detectron2 R-50.pkl r50.pt

Eight classes are Cityscapes', whose images are looked at in their own size, unless --annotations names others.

What comes out works with predict.py, evaluate.py and benchmark.py, and as the frozen host of a refiner of its own
(Table 3, second row), which takes one command more:

    torchrun --nproc-per-node 8 scripts/train.py --model mask_rcnn --refine --root /data/coco \\
        --recipe mask_rcnn_r50_3x --set host.backbone.weights=none train.init_from=mask_rcnn.pt \\
        sharpcontour.train_host=false

With sharpcontour.train_host=true, or without --refine, the host goes on learning. Its stem and res2 stay frozen, as the
originals keep them, where host.backbone.weights=mask_rcnn.pt names the checkpoint too; with none they learn as well.
(For torchvision's weights --recipe mask_rcnn_torchvision, and host.backbone.norm_eps=0 among the settings; convert
them with --drop-unused, since COCO's annotations have 80 of the 90 classes that torchvision's models know).

A .pkl may hold numpy arrays and plain containers, nothing else; anything else is refused and not executed. Every tensor
without a counterpart is listed.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.annotations import Category, read_coco
from data.categories import COCO_UNUSED, published_categories
from data.cityscapes import CLASSES
from data.config import Resize
from engine.config import Config
from engine.recipes import RECIPES
from models.zoo import MODELS, build_model
from sharpcontour.errors import InputError
from sharpcontour.io.files import check_writable
from sharpcontour.io.plain import to_dict

if TYPE_CHECKING:  # --help needs no torch: what does is imported by the functions that use it
    from torch import Tensor, nn

    from models.convert.names import Renamed

SOURCES = ("torchvision", "detectron2", "adelaidet", "dance", "refinemask")
COUNTER = "num_batches_tracked"  # of batch norms; nothing here reads it


def main() -> int:
    """Read, rename, check against the model, write."""
    args = parse_arguments()
    check_writable(args.target, (args.source, args.annotations))
    from engine import checkpoint
    from models.convert.reading import read_weights

    weights = read_weights(args.source)
    if "conv1_w" in weights:
        return convert_body(weights, args)
    model_name, host, found = translate(weights, args)
    report(found)
    count = classes_in(model_name, found.weights, args.source)
    if args.drop_unused:
        count = drop_unused(found.weights, count)
    categories = name_categories(count, args)
    config = configuration(model_name, host, args.origin, categories)
    model = build_model(host, len(categories))
    fill(model, found.weights, args)
    state = {"model": model.state_dict(), "config": to_dict(config), "categories": categories, "step": 0}
    checkpoint.save_file(state, args.target, mend=f"{args.source} is damaged, use another file")
    size = f"{config.data.test_short_side} / {config.data.test_max_side}"
    print(f"{args.target}: {model_name}, {host.backbone.name}, {len(categories)} classes; test size {size}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--from", dest="origin", required=True, choices=SOURCES, help="project that wrote the weights")
    add("source", metavar="SRC", help="file of torch, or a pickle of numpy arrays named .pkl")
    add("target", metavar="DST", help="checkpoint to write")
    add(
        "--annotations",
        metavar="GT.json",
        help="COCO annotations that name the classes (default: COCO's, or Cityscapes')",
    )
    add("--drop-unused", action="store_true", help="leave out the ten classes of torchvision's that COCO never used")
    add("--partial", action="store_true", help="let tensors that the file lacks keep random values (default: refuse)")
    return parser.parse_args()


def convert_body(weights: dict[str, Tensor], args: argparse.Namespace) -> int:
    """Write ImageNet weights as a plain file of a body's tensors, and print the settings that go with it."""
    from engine import checkpoint
    from models.convert.backbones import from_caffe2

    found = from_caffe2(weights)
    report(found)
    checkpoint.save_file(found.weights, args.target, mend=f"{args.source} is damaged, use another file")
    grouped = found.weights["layer1.0.conv2.weight"].shape[1] != found.weights["layer1.0.conv2.weight"].shape[0]
    std = "57.375,57.12,58.395" if grouped else "1,1,1"
    print(
        f"{args.target}: for --set host.backbone.weights={args.target} host.backbone.channel_order=bgr "
        f"host.backbone.stride_in_1x1={str(not grouped).lower()} host.backbone.pixel_std={std} "
        "host.backbone.pixel_mean=103.53,116.28,123.675 (mask_rcnn_* and condinst_* recipes need the first alone)"
    )
    return 0


def translate(weights: dict[str, Tensor], args: argparse.Namespace) -> tuple[str, Any, Renamed]:
    """The name of the model, the configuration of the host, and the tensors by this project's names."""
    from models.convert.condinst import from_adelaidet
    from models.convert.dance import from_dance
    from models.convert.mask_rcnn import from_detectron2, from_torchvision
    from models.convert.pointrend import from_pointrend, is_pointrend
    from models.convert.refinemask import from_refinemask

    if args.origin == "torchvision":
        return "mask_rcnn", *from_torchvision(weights)
    if args.origin == "detectron2" and is_pointrend(weights):
        return "pointrend", *from_pointrend(weights, args.source)
    if args.origin == "detectron2":
        return "mask_rcnn", *from_detectron2(weights, args.source)
    if args.origin == "refinemask":
        return "refinemask", *from_refinemask(weights, args.source)
    if args.origin == "adelaidet":
        return "condinst", *from_adelaidet(weights, args.source)
    return "dance", *from_dance(weights, args.source)


def report(found: Renamed) -> None:
    """Say what became of every tensor in the file."""
    print(f"{len(found.weights)} tensors taken over")
    if found.ignored:
        kinds = Counter(name.rpartition(".")[2] for name in found.ignored)
        print(f"{len(found.ignored)} of no use:", ", ".join(f"{count} {kind}" for kind, count in kinds.items()))
    if found.unused:
        print(f"{len(found.unused)} without a counterpart here:", *found.unused, sep="\n  ")


def classes_in(model_name: str, weights: dict[str, Tensor], source: str) -> int:
    """The number of classes that weights know, the background left out."""
    from models.two_stage.host import TwoStage

    # A softmax has a place for the background, sigmoids have none.
    key, extra = (
        ("box_head.scores.bias", 1)
        if issubclass(MODELS[model_name], TwoStage)
        else ("detector.head.cls_logits.bias", 0)
    )
    if key not in weights:
        raise InputError(f"{source}: no {key} among its tensors; is it of another model than --from says?")
    return len(weights[key]) - extra


def name_categories(count: int, args: argparse.Namespace) -> list[Category]:
    """The categories of the classes, in their order."""
    if not args.annotations:
        return published_categories(count, every_id=args.origin == "torchvision" and not args.drop_unused)
    categories = read_coco(Path(args.annotations)).categories
    if len(categories) != count:
        raise InputError(f"{args.annotations}: has {len(categories)} categories, the weights {count} classes")
    return categories


def configuration(model_name: str, host: Any, origin: str, categories: list[Category]) -> Config:
    """A run that the weights could be from: Cityscapes' sizes where the classes are Cityscapes', else COCO's."""
    of_cityscapes = [category["name"] for category in categories] == list(CLASSES.values())
    config = RECIPES["cityscapes" if of_cityscapes else "coco_1x"](model_name, False)
    config.host = host
    own: dict[str, Resize] = {"torchvision": "torchvision", "refinemask": "mmcv"}
    config.data.resize = own.get(origin, "detectron2")  # the others are built on it
    return config


def drop_unused(weights: dict[str, Tensor], count: int) -> int:
    """Leave out COCO's unused classes; others get the probability that these had. Returns how many are left."""
    if count != 90:
        raise InputError(f"--drop-unused is for torchvision's 90 classes of COCO; these weights have {count}")
    kept = [k for k in range(90) if k + 1 not in COCO_UNUSED]
    for part in ("weight", "bias"):
        weights[f"box_head.scores.{part}"] = weights[f"box_head.scores.{part}"][[*kept, 90]]
        deltas = weights[f"box_head.deltas.{part}"]
        weights[f"box_head.deltas.{part}"] = deltas.unflatten(0, (90, 4))[kept].flatten(0, 1)
        weights[f"mask_head.logits.{part}"] = weights[f"mask_head.logits.{part}"][kept]
    return len(kept)


def fill(model: nn.Module, weights: dict[str, Tensor], args: argparse.Namespace) -> None:
    """Load the tensors into the model; InputError where one is missing or of another shape."""
    own = model.state_dict()
    for key, value in own.items():
        if key in weights and weights[key].shape != value.shape:
            raise InputError(
                f"{args.source}: {key} has the shape {tuple(weights[key].shape)}, the model needs {tuple(value.shape)}"
            )
    unknown = [key for key in weights if key not in own]
    if unknown:
        print(f"{len(unknown)} that the model does not have:", *unknown, sep="\n  ")
    missing = [key for key in own if key not in weights and not key.endswith(COUNTER)]
    if missing:
        print(f"{len(missing)} that the file lacks:", *missing, sep="\n  ")
        if not args.partial:
            raise InputError(
                f"{args.source}: lacks {len(missing)} tensors, the first {missing[0]}; --partial leaves them random"
            )
    model.load_state_dict({key: value for key, value in weights.items() if key in own}, strict=False)


if __name__ == "__main__":
    _cli.run(main)
