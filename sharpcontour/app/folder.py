"""A folder of photographs: each is refined like a single one, with the masks that are called like it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from sharpcontour.app.photograph import refine_files
from sharpcontour.errors import InputError
from sharpcontour.formats.named_masks import NoMaskError
from sharpcontour.formats.outlines import counted
from sharpcontour.formats.which_image import first_names
from sharpcontour.formats.yolo import CLASSES
from sharpcontour.io.files import UnwritableError
from sharpcontour.io.images import images_in

if TYPE_CHECKING:
    from sharpcontour.anymask.refiner import MaskRefinerLike


def refine_folder(
    load: Callable[[], MaskRefinerLike],
    photos: Path,
    masks: Sequence[Path],
    out: str | Path | None = None,
    *,
    formats: Sequence[str],
    simplify: float | None = None,
) -> int:
    """Refine the masks of all photographs in a folder, and print a line for each.

    One that cannot be refined is told and does not stop the others; one without masks is counted.

    Args:
        load: called once all files have been found.
        photos: the folder, without those in it.
        masks: folders, in which :func:`files_of` finds the masks of each photograph, and files that know their
            photographs by name, such as those of COCO and CVAT.
        out: folder to write to, made if missing; None: one beside where the command is called, named like ``photos``.
        formats, simplify: as of :func:`~sharpcontour.app.photograph.refine_files`.

    Returns:
        0, or 2 where a photograph could not be refined, or none has been.

    Raises:
        InputError: where no photograph has masks, two photographs are called alike, or a result cannot be written.
    """
    paths = images_in(photos)
    _check_names(paths)
    folders = [path for path in masks if path.is_dir()]
    own, unused = files_of(paths, folders)
    shared = [path for path in masks if not path.is_dir()]
    for path in shared:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder of masks")
    if not shared and not any(own.values()):
        raise InputError(
            f"{', '.join(map(str, folders))}: no file is called like a photograph in {photos}; masks of dog.jpg are in "
            "dog.png, dog.json, dog_1.png, ..."
        )
    folder = Path(f"{photos.resolve().name}_sharp") if out is None else Path(out)
    refiner = load()
    failed, without = [], []
    with tqdm(paths, desc="refinement", unit="image", disable=None) as bar:
        for photo in bar:
            try:
                files = _of_one_kind(photo, own[photo]) + shared
                if not files:
                    raise NoMaskError
                refine_files(
                    lambda: refiner,
                    photo,
                    files,
                    folder,
                    formats=formats,
                    simplify=simplify,
                    tell=bar.write,
                    brief=True,
                )
            except NoMaskError:
                without.append(photo.name)
            except UnwritableError:  # nor will the next one be
                raise
            except InputError as error:
                failed.append(photo.name)
                bar.write(f"error: {error}", file=sys.stderr)
    done = len(paths) - len(failed) - len(without)
    print(f"{counted(done, 'photograph')} refined" + (f"; files are in {folder}" if done else ""))
    if without:
        print(f"{counted(len(without), 'photograph')} without masks: {first_names(without)}")
    if unused:
        print(f"{counted(len(unused), 'file')} not used, called like no photograph: {first_names(unused)}")
    if failed:
        print(f"{counted(len(failed), 'photograph')} failed: {first_names(failed)}", file=sys.stderr)
    return 0 if done and not failed else 2


def _check_names(photos: Sequence[Path]) -> None:
    """See that what is written of each photograph has a name of its own."""
    stems: dict[str, Path] = {}
    for photo in photos:
        other = stems.setdefault(photo.stem.casefold(), photo)
        if other is not photo:
            raise InputError(
                f"{photo.parent}: {other.name} and {photo.name} are called alike, and so would be what is written; "
                "keep masks in a folder of their own, and such photographs in several"
            )


def files_of(photos: Sequence[Path], folders: Sequence[Path]) -> tuple[dict[Path, list[Path]], list[Path]]:
    """The files of masks of each photograph.

    Those of dog.jpg are called dog with any ending, or where there is none dog_1.png, dog-mask.png, dog.0.png and the
    like, unless another photograph has more of that name.

    Args:
        photos: none called like another but for the ending.
        folders: with files of masks; photographs in them are none.

    Returns:
        The files by photograph, and those of no photograph.
    """
    by_stem = {photo.stem: photo for photo in photos}
    exact: dict[Path, list[Path]] = {photo: [] for photo in photos}
    longer: dict[Path, list[Path]] = {photo: [] for photo in photos}
    unused = []
    seen = {photo.resolve() for photo in photos}
    for file in (file for folder in folders for file in sorted(folder.iterdir())):
        hidden = file.name.startswith(".") or file.name == CLASSES  # readers of YOLO's files find that by themselves
        if hidden or not file.is_file() or file.resolve() in seen:
            continue
        ends = [mark.start() for mark in re.finditer(r"[-_.]", file.stem)]
        begins = [file.stem[:end] for end in reversed(ends) if file.stem[:end] in by_stem]
        if file.stem in by_stem:
            exact[by_stem[file.stem]].append(file)
        elif begins:
            longer[by_stem[begins[0]]].append(file)
        else:
            unused.append(file)
    for photo in photos:
        if exact[photo]:  # dog_1.png may be of a photograph dog_1.jpg that is not there
            unused += longer[photo]
    return {photo: exact[photo] or longer[photo] for photo in photos}, unused


def _of_one_kind(photo: Path, files: list[Path]) -> list[Path]:
    """The files of a photograph's masks; InputError where they may be the same objects written twice."""
    if len({file.suffix.lower() for file in files}) > 1:
        raise InputError(
            f"{photo}: its masks are in files of several kinds, {first_names(file.name for file in files)}; keep those "
            "of one kind in the folder"
        )
    return files
