"""Make annotations to train on, check a data set before training, or write the built-in one to disk.

python scripts/prepare_data.py coco --root DIR --check     every annotation and every image of both splits
python scripts/prepare_data.py coco                        where COCO 2017 comes from and how its folders look
python scripts/prepare_data.py cityscapes --root DIR       makes annotations/instances_{train,val}.json from gtFine/
python scripts/prepare_data.py cityscapes --root DIR --check
python scripts/prepare_data.py labelme --root FOLDER --out DIR      makes train.json and val.json of LabelMe files
python scripts/prepare_data.py lvis --annotations lvis_v0.5_val.json --out lvis_val_cocofied.json    ground truth of AP*
python scripts/prepare_data.py shapes --root DIR           the built-in set as PNG files and COCO annotations
python scripts/prepare_data.py shapes --root DIR --check

Without --root, cityscapes and labelme tell what they need, too, and lvis does without --annotations. labelme ends with
status 1 where something had to be left out because it is broken or missing; what is right is written all the same.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
import json
import os
import shlex
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from data import DataConfig, cityscapes, labelme
from data.annotations import Annotations
from data.categories import check_same_classes
from data.coco_split import CocoSplit, files_below
from data.lvis import with_coco_categories
from data.shapes import MIN_SIZE, ShapesDataset
from sharpcontour.errors import InputError
from sharpcontour.formats.outlines import counted
from sharpcontour.io.command_line import between
from sharpcontour.io.files import check_writable, read_json, save_results, write_whole
from sharpcontour.pictures import drawing

LISTED = 20  # unreadable images named

TRAINING = ("--model", "mask_rcnn", "--refine", "--recipe", "photos")  # for photographs of a few hundred pixels
START = "results/photos/start.pt"  # the weights that it begins from

COCO_STEPS = """\
COCO 2017 (annotations: CC BY 4.0; images: under the terms of Flickr), from http://images.cocodataset.org/
  zips/train2017.zip                               18 GB  118,287 images
  zips/val2017.zip                                  1 GB    5,000 images
  annotations/annotations_trainval2017.zip        241 MB
Unpack all three into one folder, so that it holds annotations/, train2017/ and val2017/, then check it with
  python scripts/prepare_data.py coco --root DIR --check"""

CITYSCAPES_STEPS = """\
Cityscapes (non-commercial licence; an account at https://www.cityscapes-dataset.com/ is needed)
  leftImg8bit_trainvaltest.zip     11 GB    2,975 training and 500 validation images, 1,525 without labels
  gtFine_trainvaltest.zip         241 MB    their fine annotations
Unpack both into one folder, so that it holds leftImg8bit/ and gtFine/, then make the annotations and check them with
  python scripts/prepare_data.py cityscapes --root DIR
  python scripts/prepare_data.py cityscapes --root DIR --check"""
LABELME_STEPS = """\
LabelMe (https://github.com/wkentaro/labelme): a folder of its JSON files, in folders or not, and their photographs
  python scripts/prepare_data.py labelme --root FOLDER --out DIR
writes DIR/train.json and DIR/val.json. Photographs stay where they are; those that are not where the files say are
looked for below FOLDER, or below the folder of --images. docs/train.md goes on from there."""
LVIS_STEPS = """\
LVIS (annotations: CC BY 4.0; the images are COCO's), from https://dl.fbaipublicfiles.com/LVIS/
  lvis_v0.5_val.json.zip      5,000 images, all of COCO's val2017: the ground truth of AP* in the papers
  lvis_v1_val.json.zip       19,809 images, 4,809 of them in val2017, the others in COCO's training set
Give the file COCO's categories with
  python scripts/prepare_data.py lvis --annotations lvis_v0.5_val.json --out lvis_val_cocofied.json
as COCO_DIR/annotations/lvis_val.json it is found by evaluate.py --data lvis --root COCO_DIR."""


def main() -> int:
    """Do what the arguments say."""
    args = parse_arguments()
    if args.check:
        check_data(args)
    elif args.data == "shapes":
        write_shapes(args)
    elif args.data == "cityscapes" and args.root:
        write_cityscapes(Path(args.root))
    elif args.data == "labelme" and args.root:
        return write_labelme(args)
    elif args.data == "lvis" and args.annotations:
        write_lvis(args)
    else:
        steps = {"coco": COCO_STEPS, "cityscapes": CITYSCAPES_STEPS, "labelme": LABELME_STEPS, "lvis": LVIS_STEPS}
        print(steps[args.data])
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    defaults = DataConfig()
    add("data", choices=("coco", "cityscapes", "labelme", "lvis", "shapes"), help="which data set")
    add("--root", metavar="DIR", default="", help="its folder")
    add("--check", action="store_true", help="read all annotations and images of both splits")
    add("--annotations", metavar="LVIS.json", help="lvis: the original file, .json or .json.gz")
    add(
        "--out", metavar="PATH", help="lvis: the file to write, with COCO's categories; labelme: the folder to write to"
    )
    add("--images", metavar="DIR", help="labelme: folder of photographs that are not where the files say")
    add(
        "--val",
        type=between(0, 1, "no share above 0 and below 1"),
        metavar="SHARE",
        default=0.2,
        help="labelme: of the images, to validate on (default: 0.2)",
    )
    for split in ("train", "val"):
        add(f"--{split}-json", metavar="FILE", default="", help=f"coco: your own {split} annotations")
        add(f"--{split}-images", metavar="DIR", default="", help="coco: the folder of their images")
    add("--train-count", type=int, metavar="N", default=500, help="shapes: training images to write (default: 500)")
    add("--val-count", type=int, metavar="N", default=defaults.val_images_count, help="shapes: (default: %(default)s)")
    add("--size", type=int, metavar="PX", default=defaults.shapes_size, help="shapes: side (default: %(default)s px)")
    add("--seed", type=int, default=defaults.seed, help="of the drawn images, or of the split (default: %(default)s)")
    args = parser.parse_args()
    if min(args.train_count, args.val_count) < 1 or args.size < MIN_SIZE or args.seed < 0:
        raise InputError(
            f"--train-count and --val-count must be 1 or more, --size {MIN_SIZE} or more, and --seed 0 or more"
        )
    return args


def write_shapes(args: argparse.Namespace) -> None:
    """Write the built-in shapes as PNG files and annotations, in the folders of COCO 2017."""
    if not args.root:
        raise InputError("shapes: say where to write them with --root DIR")
    config = DataConfig(
        shapes_size=args.size, train_images_count=args.train_count, val_images_count=args.val_count, seed=args.seed
    )
    root = Path(args.root)
    for path in (root / "annotations").glob("instances_*2017.json"):
        if '"shapes_' not in beginning(path, 2000):
            raise InputError(f"{path}: is there already and of another data set; choose another --root")
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        data = ShapesDataset(config, split)
        truth = data.ground_truth()
        folder = root / f"{split}2017"
        folder.mkdir(exist_ok=True)
        for index, entry in enumerate(tqdm(truth["images"], desc=split, unit="image", disable=None)):
            drawing.save(folder / entry["file_name"], data.scene(index)[0])
        path = root / "annotations" / f"instances_{split}2017.json"
        write_whole(json.dumps(truth).encode(), path)
        print(f"{path}: {len(truth['images'])} images, {len(truth['annotations'])} objects")
    print(f"train on them with: torchrun scripts/train.py --model dance --refine --data coco --root {root}")


def beginning(path: Path, count: int) -> str:
    """The first characters of a file, which may be a large one: what made it."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(count)


def write_cityscapes(root: Path) -> None:
    """Write COCO annotations of both splits of Cityscapes, made from the pixels of gtFine."""
    for split in ("train", "val"):
        path, _ = files_below(root, "cityscapes", split)
        check_writable(path)
        data = cityscapes.convert(root / "gtFine" / split, progress=True)
        save_results(data, path)
        objects = sum(not one["iscrowd"] for one in data["annotations"])
        groups = len(data["annotations"]) - objects
        expected = {"train": 2975, "val": 500}[split]
        count = f"{len(data['images'])} of Cityscapes' {expected} images"
        print(f"{path}: {count}, {objects} objects, {groups} groups")


def write_lvis(args: argparse.Namespace) -> None:
    """Write LVIS annotations of the categories that COCO has, under COCO's ids."""
    if not args.out:
        raise InputError("lvis: say where to write the annotations with --out FILE")
    check_writable(args.out, (args.annotations,))
    data = with_coco_categories(read_json(args.annotations), args.annotations)
    save_results(data, args.out)
    print(
        f"{args.out}: {len(data['images'])} images, {len(data['annotations'])} annotations, "
        f"{len(data['categories'])} of COCO's 80 categories"
    )
    elsewhere = sum("val2017" not in str(image.get("coco_url", "val2017")) for image in data["images"])
    if elsewhere:
        print(
            f"warning: {elsewhere} images are not of COCO's val2017 (LVIS v1 has many of its training set); "
            "results on them are not comparable with the papers'"
        )


def write_labelme(args: argparse.Namespace) -> int:
    """Write COCO annotations of LabelMe files in two splits; 1 where something of them had to be left out."""
    if not args.out:
        raise InputError("labelme: say where to write train.json and val.json with --out DIR")
    root, out = Path(args.root), Path(args.out)
    files = {split: out / f"{split}.json" for split in labelme.SPLITS}
    for path in files.values():
        check_writable(path)
        if path.exists() and labelme.MADE not in beginning(path, 200):
            raise InputError(f"{path}: is there already and was not made of LabelMe files; choose another --out")
    images = Path(args.images) if args.images else None
    found = labelme.convert(root, out, images, args.val, args.seed, progress=True)
    for path in files.values():
        check_writable(path, found.read)
    given = []
    folder = _from_here(found.folder)
    for split, path in files.items():
        data = found.splits[split]
        save_results({"info": {"description": labelme.MADE}, **data}, path)
        counts = _objects_by_class(data)
        empty = len(data["images"]) - len({one["image_id"] for one in data["annotations"]})
        print(f"{path}: {len(data['images'])} images, {empty} of them without objects")
        print(f"  {_listed(counts)}")
        if absent := [name for name, count in counts.items() if not count]:
            print(f"  warning: no object of {', '.join(absent)}; label more, or split with another --seed")
        given += [f"--{split}-json", str(path), f"--{split}-images", folder]
    print(f"the images are in {folder} and below it")
    for line in found.problems.lines():
        print(f"  {line}")
    for fault in found.faults:
        print(f"left out: {fault}")
    if found.faults:
        faults = counted(len(found.faults), "fault")
        print(f"{faults}; all else is written. Mend what is named and give the same command again")
    check, train, start = (
        _from_here(_cli.ROOT / path) for path in ("scripts/prepare_data.py", "scripts/train.py", START)
    )
    print("check it: " + shlex.join(["python", check, "coco", "--check", *given]))
    settings = ["--set", f"host.backbone.weights={start}", "--out", "runs/mine"]
    print("train (docs/train.md): " + shlex.join(["python", train, *TRAINING, *settings, *given]))
    return 1 if found.faults else 0


def _from_here(path: Path) -> str:
    """A path as seen from where the command runs, where it is below; else its whole path."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _objects_by_class(data: Annotations) -> Counter[str]:
    """How many objects, crowds left out, a split has of each class."""
    names = {category["id"]: category["name"] for category in data["categories"]}
    counts = Counter(dict.fromkeys(names.values(), 0))
    counts.update(names[one["category_id"]] for one in data["annotations"] if not one["iscrowd"])
    return counts


def _listed(counts: Counter[str]) -> str:
    return f"{len(counts)} classes: " + ", ".join(f"{name} {count}" for name, count in counts.most_common())


def check_data(args: argparse.Namespace) -> None:
    """Read everything and tell what is there and what is wrong; InputError if an image cannot be used."""
    if args.data == "labelme":
        raise InputError(
            "labelme --check: check what was made of it, with the command that is printed then: coco --check"
        )
    values = {
        f"{split}_{kind}": getattr(args, f"{split}_{kind}") for split in ("train", "val") for kind in ("json", "images")
    }
    config = DataConfig(name="coco" if args.data == "shapes" else args.data, root=args.root, **values)
    splits = [split for split in ("train", "val") if args.root or values[f"{split}_json"]]
    if args.data == "lvis":
        # AP* needs only LVIS' validation images.
        splits = [
            s for s in splits if s == "val" or values[f"{s}_json"] or files_below(args.root, "lvis", s)[0].is_file()
        ]
    if not splits:
        raise InputError(f"{args.data} --check: give --root DIR, or --train-json and --train-images, or those of val")
    datasets: list[CocoSplit] = []
    broken: list[str] = []
    for split in splits:
        datasets.append(CocoSplit(replace(config, keep_empty=True), split))
        broken += check_split(datasets[-1])
    if len(datasets) == 2:
        train, val = datasets
        check_same_classes(train.categories, val.categories, (str(train.json_path), str(val.json_path)))
    if broken:
        raise InputError(f"{len(broken)} images cannot be used, the first: {broken[0]}")


def check_split(data: CocoSplit) -> list[str]:
    """Print a summary of one split; returns what is wrong with its images, a line for each."""
    truth = data.ground_truth()
    with_objects = {one["image_id"] for one in truth["annotations"] if not one["iscrowd"]}
    crowds = sum(one["iscrowd"] for one in truth["annotations"])
    print(f"{data.json_path}: {len(data)} images, {len(data) - len(with_objects)} of them without objects")
    usable = f", {len(data.objects.labels)} of them fit for training" if data.split == "train" else ""
    print(f"  {len(truth['annotations']) - crowds} objects{usable}; {crowds} crowd regions")
    print(f"  {_listed(_objects_by_class(truth))}")
    print(f"  annotations: {data.problems.summary() or 'nothing wrong'}")
    broken = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the interpreter's lock
        results = pool.map(lambda index: _problem(data, index), range(len(data)))
        for text in tqdm(results, total=len(data), desc=f"{data.split} images", unit="image", disable=None):
            if text:
                broken.append(text)
    print(f"  images: {len(broken)} of {len(data)} cannot be used" if broken else "  images: all readable")
    for text in broken[:LISTED]:
        print(f"    {text}")
    return broken


def _problem(data: CocoSplit, index: int) -> str:
    try:
        data.read_image(index)
    except InputError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    _cli.run(main)
