"""Check a data set before training, or write the built-in one to disk.

python scripts/prepare_data.py coco --root DIR --check     every annotation and every image of both splits
python scripts/prepare_data.py coco                        where COCO 2017 comes from and how its folders look
python scripts/prepare_data.py shapes --root DIR           the built-in set as PNG files and COCO annotations
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
from tqdm import tqdm

from data import DataConfig
from data.coco import CocoDataset
from data.shapes import ShapesDataset
from sharpcontour.errors import InputError

LISTED = 20  # unreadable images named

COCO_STEPS = """\
COCO 2017 (annotations: CC BY 4.0; images: under the terms of Flickr), from http://images.cocodataset.org/
  zips/train2017.zip                               18 GB  118,287 images
  zips/val2017.zip                                  1 GB    5,000 images
  annotations/annotations_trainval2017.zip        241 MB
Unpack all three into one folder, so that it holds annotations/, train2017/ and val2017/, then check it with
  python scripts/prepare_data.py coco --root DIR --check"""


def main() -> int:
    """Do what the arguments say."""
    args = parse_arguments()
    if args.data == "shapes":
        write_shapes(args)
    elif args.check:
        check_coco(args)
    else:
        print(COCO_STEPS)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    defaults = DataConfig()
    add("data", choices=("coco", "shapes"), help="which data set")
    add("--root", metavar="DIR", default="", help="its folder: annotations/, train2017/ and val2017/")
    add("--check", action="store_true", help="coco: read all annotations and images")
    for split in ("train", "val"):
        add(f"--{split}-json", metavar="FILE", default="", help=f"coco: your own {split} annotations")
        add(f"--{split}-images", metavar="DIR", default="", help="coco: the folder of their images")
    add("--train-count", type=int, metavar="N", default=500, help="shapes: training images to write (default: 500)")
    add("--val-count", type=int, metavar="N", default=defaults.val_images_count, help="shapes: (default: %(default)s)")
    add("--size", type=int, metavar="PX", default=defaults.shapes_size, help="shapes: side (default: %(default)s px)")
    add("--seed", type=int, default=defaults.seed, help="shapes: of the training images (default: %(default)s)")
    return parser.parse_args()


def write_shapes(args: argparse.Namespace) -> None:
    """PNG files and annotations in the folders of COCO 2017."""
    if not args.root:
        raise InputError("shapes: say where to write them with --root DIR")
    config = DataConfig(
        shapes_size=args.size, train_images_count=args.train_count, val_images_count=args.val_count, seed=args.seed
    )
    root = Path(args.root)
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        data = ShapesDataset(config, split)
        truth = data.ground_truth()
        folder = root / f"{split}2017"
        folder.mkdir(exist_ok=True)
        for index, entry in enumerate(tqdm(truth["images"], desc=split, unit="image", disable=None)):
            picture = cv2.cvtColor(data.scene(index)[0], cv2.COLOR_RGB2BGR)
            if not cv2.imwrite(str(folder / entry["file_name"]), picture):
                raise InputError(f"{folder / entry['file_name']}: cannot be written")
        path = root / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(truth), encoding="utf-8")
        print(f"{path}: {len(truth['images'])} images, {len(truth['annotations'])} objects")
    print(f"train on them with: torchrun scripts/train.py --model dance --refine --data coco --root {root}")


def check_coco(args: argparse.Namespace) -> None:
    """Read everything and tell what is there and what is wrong; InputError if an image cannot be used."""
    values = {
        f"{split}_{kind}": getattr(args, f"{split}_{kind}") for split in ("train", "val") for kind in ("json", "images")
    }
    config = DataConfig(name="coco", root=args.root, **values)
    splits = [split for split in ("train", "val") if args.root or values[f"{split}_json"]]
    if not splits:
        raise InputError("coco --check: give --root DIR, or --train-json and --train-images, or those of val")
    broken = [text for split in splits for text in check_split(config, split)]
    if broken:
        raise InputError(f"{len(broken)} images cannot be used, the first: {broken[0]}")


def check_split(config: DataConfig, split: str) -> list[str]:
    """Print a summary of one split; returns what is wrong with its images, a line for each."""
    training = split == "train"
    data = CocoDataset(DataConfig(**{**vars(config), "keep_empty": True}), split)
    truth = data.ground_truth()
    with_objects = {one["image_id"] for one in truth["annotations"] if not one["iscrowd"]}
    crowds = sum(one["iscrowd"] for one in truth["annotations"])
    print(f"{data.json_path}: {len(data)} images, {len(data) - len(with_objects)} of them without objects")
    usable = f", {len(data.objects.labels)} of them fit for training" if training else ""
    print(f"  {len(truth['annotations']) - crowds} objects{usable}; {crowds} crowd regions")
    names = {category["id"]: category["name"] for category in data.categories}
    counts = Counter({name: 0 for name in names.values()})
    counts.update(names[one["category_id"]] for one in truth["annotations"] if not one["iscrowd"])
    print(f"  {len(names)} classes: " + ", ".join(f"{name} {count}" for name, count in counts.most_common()))
    print(f"  annotations: {data.problems.summary() or 'nothing wrong'}")
    broken = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the interpreter's lock
        results = pool.map(lambda index: _problem(data, index), range(len(data)))
        for text in tqdm(results, total=len(data), desc=f"{split} images", unit="image", disable=None):
            if text:
                broken.append(text)
    print(f"  images: {len(broken)} of {len(data)} cannot be used" if broken else "  images: all readable")
    for text in broken[:LISTED]:
        print(f"    {text}")
    return broken


def _problem(data: CocoDataset, index: int) -> str:
    try:
        data.read_image(index)
    except InputError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    _cli.run(main)
