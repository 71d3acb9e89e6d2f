"""The images that records are of: whether they are there, and whether they are the same as before."""

from __future__ import annotations

import hashlib
from pathlib import Path

from data.coco_split import files_below
from sharpcontour.errors import InputError
from sharpcontour.io.files import read_json, save_results

SPLITS = ("train", "val")
KNOWN = "images.json"  # beside the tables: what the records of a folder are of


def check_files(data: str, root: Path) -> None:
    """Make sure that a data set is there before hours of training; InputError where a part of it is not."""
    needed = list(dict.fromkeys(path for split in SPLITS for path in files_below(root, data, split)))
    if missing := [str(path.relative_to(root)) for path in needed if not path.exists()]:
        whole = ", ".join(str(path.relative_to(root)) for path in needed)
        how = "; scripts/prepare_data.py cityscapes makes the annotations" if data == "cityscapes" else ""
        raise InputError(f"{root}: has no {', '.join(missing)}; --data {data} needs {whole} there{how}")


def check_same_photographs(root: Path, results: Path) -> None:
    """Make sure that records of photographs are all of the same ones, by the names in the annotation files.

    The first call for a folder of results writes down what its records are of.

    Args:
        root: of the data set.
        results: folder of tables, records below it.

    Raises:
        InputError: where its records are of other photographs.
    """
    own = {split: _fingerprint(files_below(root, "photos", split)[0]) for split in SPLITS}
    path = results / KNOWN
    if not path.is_file():
        results.mkdir(parents=True, exist_ok=True)
        save_results(own, path)
        return
    known = read_json(path)
    if known != own:
        counts = [" and ".join(str(one[split]["count"]) for split in SPLITS) for one in (known, own)]
        raise InputError(
            f"{results}: holds records of other photographs ({counts[0]} to train and to validate on) than are in "
            f"{root} ({counts[1]}); keep yours apart with --results DIR --runs DIR, or if no record is of the others "
            f"remove {path}"
        )


def _fingerprint(annotations: Path) -> dict[str, int | str]:
    """How many images an annotation file has, and a hash of their names."""
    found = read_json(annotations)
    images = found.get("images") if isinstance(found, dict) else None
    if not isinstance(images, list):
        raise InputError(f'{annotations}: has no list "images", so it is no COCO annotation file')
    names = sorted(str(image.get("file_name")) if isinstance(image, dict) else "" for image in images)
    return {
        "count": len(names),
        "hash": hashlib.sha256("\n".join(names).encode(errors="surrogatepass")).hexdigest()[:16],
    }
