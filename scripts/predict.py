"""Run a trained model on images of your own: pictures, COCO results and polygons.

    python scripts/predict.py --checkpoint runs/dance_refine_shapes photo.jpg more_photos/ --out found

For each image the folder of --out gets
    photo_compare.png     contours before and after refinement, with close-ups of where they moved most
    photo_evolution.png   the largest instance, iteration by iteration
or, where the model has no refiner, photo.png. For all images together it gets
    results.json    COCO results, every entry with its "file_name", which begins at the folder that holds all images
                    where two have one name. An image's id is the number that is its file's name, as in COCO, if all
                    names are numbers; else its place in the list, from 1
    polygons.json   for each image a list "instances", each with "class", "category_id", "score", "bbox" (x, y, width,
                    height) and "rings": "points" [x, y] and whether the ring is a "hole"
With --html PAGE.html it also writes one file for a browser, with all images in it: contours before and after refinement
with a divider to drag, what changed most first, to be chosen by class, score and change.
All coordinates are continuous pixels of the upright image, the centre of the first pixel being (0.5, 0.5). Both files
hold all detections; --score-threshold is for the pictures. Of a file name that is not UTF-8, JSON has the odd bytes as
\\udcXX, by which Python, and so refine.py, finds the file again.

What is done is written to results.json.part image by image: after an interruption the same command goes on from there.
Images that cannot be read are left out and named. So are images that fail (out of memory, ...); then the command ends
with status 1, and run again tries the images that failed, and only these.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
import contextlib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from data.annotations import Problems
from data.journal import Journal, fingerprint_of, in_a_line
from eval import pictures
from eval.pictures import viewer
from models.zoo import title_of
from sharpcontour.contours.nesting import holes
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.formats.which_image import first_names
from sharpcontour.io.device import choose_device
from sharpcontour.io.files import check_writable, save_results
from sharpcontour.io.images import images_in, looks_like_image, read_image

if TYPE_CHECKING:
    from models import Predictor

LISTED = 5  # images left out that are named


def main() -> int:
    """Predict image by image, writing down what is done; the JSON files are written at the end."""
    args = parse_arguments()
    if not 0 <= args.score_threshold <= 1:
        raise InputError(f"--score-threshold {args.score_threshold}: choose a number from 0 to 1")
    out, paths = Path(args.out), find_images(args.images)
    names = picture_names(paths, out)
    check_writable(out / "results.json")
    if args.html:
        viewer.check_page(args.html, paths)
    from models import load_model  # not before: --help and wrong use need no torch
    from models.speed import faster

    device = choose_device(args.device)
    predictor = load_model(args.checkpoint, device)
    if not predictor.finds:
        raise InputError(f"{args.checkpoint}: anymask detects nothing; give it masks: scripts/refine.py --masks")
    speed = _cli.speed_of(args)
    work = {"checkpoint": fingerprint_of(args.checkpoint), "score_threshold": args.score_threshold, **speed}
    records: list[dict[str, Any]] = []
    photos: list[viewer.Photo] = []
    faults: list[str] = []
    with faster(predictor.model, device, **speed), Journal(out / "results.json", work) as journal:
        if args.html:
            journal.require(viewer.KEY, "for --html")
        works = {}
        for path, file_name, picture, image_id in zip(paths, file_names(paths), names, image_ids(paths), strict=True):
            name = json.dumps([image_id, picture, *fingerprint_of(path)])
            how = args.score_threshold, bool(args.html)
            works[name] = partial(predict, predictor, path, file_name, image_id, out / picture, *how)
        with contextlib.closing(journal.attempts(works.items())) as attempts:
            for path, name, error in zip(tqdm(paths, unit="image", disable=None), works, attempts, strict=True):
                if error:
                    line = in_a_line(error)
                    faults.append(line if str(path) in line else f"{path}: {line}")
                else:
                    records.append(journal.done[name])
                    if args.html:
                        read = partial(read_image, path, upright=True)
                        photos.append(viewer.Photo(str(path), read, journal.done[name][viewer.KEY]))
        if not records and not journal.failed:
            journal.finish()
            raise InputError(f"no image could be used; the first: {faults[0]}")
        results = [entry for record in records for entry in record["results"]]
        save_results(results, out / "results.json")
        save_results([record["polygons"] for record in records], out / "polygons.json")
        shown = sum(record["shown"] for record in records)
        print(f"{len(records)} images, {len(results)} instances, {shown} of them drawn")
        if faults:
            print(f"{len(faults)} images left out: {first_names(faults, LISTED, '; ')}")
        print(f"pictures, results.json and polygons.json are in {out}")
        if args.html:
            print(write_page(args.html, titles_of(predictor), photos, faults))
        return journal.finish()


def predict(
    predictor: Predictor, path: Path, file_name: str, image_id: int, picture: Path, threshold: float, html: bool
) -> Callable[[], dict[str, Any]]:
    """Predict one image; what is returned draws it and makes its record, while the next image is predicted."""
    image = read_image(path, upright=True)
    found = predictor.predict(image, trace=True)
    return partial(record, predictor, image, found, file_name, image_id, picture, threshold, html)


def record(
    predictor: Predictor,
    image: np.ndarray,
    found: Detections,
    file_name: str,
    image_id: int,
    picture: Path,
    threshold: float,
    html: bool,
) -> dict[str, Any]:
    """Draw one image: its COCO results, its polygons, and how many instances are drawn, in plain values.

    With ``html`` also what the page shows of it.
    """
    kept = pictures.confident(found, threshold)
    draw(image, kept, predictor.class_names, titles_of(predictor), picture)
    file = {"file_name": file_name}
    results = [{**entry, **file} for entry in found.to_coco(image_id, predictor.category_ids)]
    instances = describe(found, predictor.class_names, predictor.category_ids)
    size = {"width": image.shape[1], "height": image.shape[0]}
    made: dict[str, Any] = {
        "results": results,
        "polygons": {**file, "image_id": image_id, **size, "instances": instances},
        "shown": len(kept),
    }
    if html:
        objects = viewer.describe(kept, predictor.class_names)
        left = {f"detection of a score below {threshold:g}, or found a second time": len(found) - len(kept)}
        made[viewer.KEY] = viewer.record_of(objects, left)
    return made


def titles_of(predictor: Predictor) -> tuple[str, str]:
    """What before and after refinement are called."""
    host = title_of(str(predictor.config.get("model", "")))
    return host, f"{host} + SharpContour"


def write_page(path: str, titles: tuple[str, str], photos: Sequence[viewer.Photo], faults: Sequence[str]) -> str:
    """Write the file of --html; returns a line that says what it holds."""
    absent = Problems()
    for fault in faults:
        absent.note("image left out", fault)
    return viewer.write_page(path, viewer.Heading(f"{titles[0]} on {len(photos)} images", *titles), photos, absent)


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults and units."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="image files, or folders whose image files are taken")
    add("--checkpoint", required=True, metavar="CKPT", help="checkpoint of scripts/train.py, or the folder of a run")
    add("--out", required=True, metavar="DIR", help="folder for what is written; made if missing")
    add(
        "--score-threshold",
        type=float,
        default=0.3,
        metavar="SCORE",
        help="pictures show detections of at least this score, 0 to 1 (default: 0.3)",
    )
    add("--html", metavar="PAGE.html", help="also one file for a browser, before and after (default: none)")
    _cli.add_device(parser)
    _cli.add_speed(parser)
    return parser.parse_args()


def find_images(arguments: Sequence[str]) -> list[Path]:
    """The image files, those of a folder sorted by name; each once."""
    paths: list[Path] = []
    for argument in map(Path, arguments):
        if argument.is_dir():
            paths += images_in(argument)
        elif not argument.is_file():
            raise InputError(f"{argument}: no such image or folder")
        elif not looks_like_image(argument):
            # Told now and not after an hour; of a folder's files it is told at the end.
            raise InputError(f"{argument}: is no image, or of a kind that cannot be read; leave it out or convert it")
        else:
            paths.append(argument)
    return list(dict.fromkeys(paths))


def picture_names(paths: Sequence[Path], out: Path) -> list[str]:
    """A name for the pictures of each image: its own without suffix, with a number where that is taken."""
    names: list[str] = []
    used: set[str] = set()
    inputs = set(map(os.path.realpath, paths))
    for path in paths:
        name, count = path.stem, 2
        while name.casefold() in used:  # many file systems take A.png and a.png for one file
            name, count = f"{path.stem}_{count}", count + 1
        used.add(name.casefold())
        names.append(name)
        for ending in (".png", "_compare.png", "_evolution.png"):
            if os.path.realpath(out / (name + ending)) in inputs:
                raise InputError(f"--out {out}: {name + ending} there is an image to be read; choose another folder")
    return names


def file_names(paths: Sequence[Path]) -> list[str]:
    """What the images are called in JSON: by name, or below the folder that holds them all where two have one name."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    whole = [os.path.abspath(path) for path in paths]
    try:
        folder = os.path.commonpath([os.path.dirname(path) for path in whole])
    except ValueError:  # of Windows
        raise InputError("two images of one name lie on different drives; predict those of each drive apart") from None
    return [Path(os.path.relpath(path, folder)).as_posix() for path in whole]


def image_ids(paths: Sequence[Path]) -> list[int]:
    """The numbers that are the files' names, if all are numbers and differ, else 1, 2, ..."""
    if all(path.stem.isascii() and path.stem.isdigit() for path in paths):
        numbers = [int(path.stem) for path in paths]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(paths) + 1))


def draw(image: np.ndarray, found: Detections, class_names: Sequence[str], titles: tuple[str, str], path: Path) -> None:
    """Write the pictures of one image; ``path`` is where they go, without ending."""
    if found.coarse is None:
        pictures.save(f"{path}.png", pictures.draw_detections(image, found, class_names))
        return
    pictures.save(f"{path}_compare.png", pictures.compare(image, found.coarse, found, class_names, titles=titles))
    if found.steps is not None and len(found):
        largest = int((found.boxes[:, 2:] - found.boxes[:, :2]).prod(1).argmax())
        steps = [objects[largest] for objects in found.steps]
        pictures.save(f"{path}_evolution.png", pictures.evolution(image, steps))
    else:
        Path(f"{path}_evolution.png").unlink(missing_ok=True)  # of an earlier command with a lower threshold


def describe(found: Detections, class_names: Sequence[str], category_ids: Sequence[int]) -> list[dict[str, object]]:
    """The instances of one image as plain numbers, coordinates rounded to a hundredth of a pixel."""
    instances = []
    for k, (x0, y0, x1, y1) in enumerate(found.boxes.tolist()):
        label, rings = int(found.labels[k]), found.rings[k]
        instances.append(
            {
                "class": class_names[label],
                "category_id": category_ids[label],
                "score": float(found.scores[k]),
                "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
                "rings": [
                    {"hole": bool(hole), "points": ring.astype(float).round(2).tolist()}
                    for ring, hole in zip(rings, holes(rings), strict=True)
                ],
            }
        )
    return instances


if __name__ == "__main__":
    _cli.run(main)
