"""Checks of COCO annotations and results: what cannot be scored is named, never silently dropped."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, TypedDict, TypeGuard

from pycocotools.coco import COCO

from data import DatasetLike
from data.annotations import OTHER_FORM, Id
from sharpcontour.errors import InputError
from sharpcontour.formats.coco_fields import OF_CVAT, is_mask_of_cvat, whole_number
from sharpcontour.formats.which_image import first_names
from sharpcontour.masks.run_lengths import RLE
from sharpcontour.masks.segmentation import find_broken, measure, tell_unusual, to_rle

Sizes = Mapping[Id, tuple[int, int]]  # (height, width) by image id
_LISTED = 10  # ids that an error message names


class CheckedAnnotation(TypedDict):
    """A checked annotation, as pycocotools is given it."""

    id: int  # from 1
    image_id: Id
    category_id: Id
    area: float  # of the object in pixels, as annotated
    segmentation: RLE
    iscrowd: int
    own_ignore: int  # the annotation's own "ignore"; pycocotools overwrites that
    source: Id  # the annotation's own id


class CheckedDetection(TypedDict):
    """A checked detection, as pycocotools is given it."""

    id: int  # from 1
    image_id: Id
    category_id: Id
    score: float
    iscrowd: int
    segmentation: RLE
    area: int  # pixels of the mask


class GroundTruth:
    """Checked annotations of a set of images, their masks as RLE.

    Args:
        data: COCO annotations: "images" (id, height, width), "categories" (id), "annotations" (id, image_id,
            category_id, area, segmentation, iscrowd if 1). Left unchanged.
        name: of the file, for error messages.

    Attributes:
        images, categories: the entries by id.
        sizes: (height, width) by image id.
        category_names: by category id, which is part of names that several have.
        coco: pycocotools' index of the annotations, their masks as RLE.

    Raises:
        InputError: where a list or a key is missing, or annotations are broken (naming their ids).
    """

    def __init__(self, data: Any, name: str = "ground truth") -> None:
        self.name = name
        for key in ("images", "annotations", "categories"):
            if not isinstance(data, Mapping) or not isinstance(data.get(key), list):
                raise InputError(f"{name}: has no list {key!r}; expected a file of COCO annotations")
        images, categories = _by_id(data["images"], "image", name), _by_id(data["categories"], "category", name)
        self.images, self.categories = images, categories
        self.sizes = {key: _size(image, name) for key, image in images.items()}
        names = {key: str(category.get("name", key)) for key, category in categories.items()}
        count = Counter(names.values())
        self.category_names = {key: name if count[name] == 1 else f"{name} (id {key})" for key, name in names.items()}
        _by_id(data["annotations"], "annotation", name)
        annotations = _checked(data["annotations"], self.sizes, self.category_names, name)
        self.coco = self.index(annotations)
        tell_unusual(data["annotations"], name)

    def index(self, annotations: Sequence[CheckedAnnotation] | Sequence[CheckedDetection]) -> COCO:
        """A pycocotools index of annotations, or of detections, on these images and categories."""
        coco = COCO()
        coco.dataset = {
            "images": [{"id": key, "height": height, "width": width} for key, (height, width) in self.sizes.items()],
            "categories": [{"id": key} for key in self.category_names],
            "annotations": list(annotations),
        }
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return coco


def ground_truth_of(dataset: DatasetLike) -> GroundTruth:
    """The checked annotations of a data set, named by their file if they come from one.

    Raises:
        InputError: see :class:`GroundTruth`.
    """
    return GroundTruth(dataset.ground_truth(), str(getattr(dataset, "json_path", "ground truth")))


def check_detections(
    detections: Sequence[Mapping[str, Any]], ground_truth: GroundTruth, name: str
) -> list[CheckedDetection]:
    """COCO results with compressed masks and their areas, numbered from 1.

    Raises:
        InputError: for broken entries and for image or category ids that the ground truth does not have.
    """
    if not isinstance(detections, (list, tuple)):
        raise InputError(f"{name}: not a list; expected COCO results, a list of detections")
    for index, found in enumerate(detections):
        for key in ("image_id", "category_id", "score", "segmentation"):
            if not isinstance(found, Mapping) or key not in found:
                raise InputError(f"{name}: entry {index} has no {key!r}; expected COCO instance segmentation results")
    _refuse_unknown("image", (found["image_id"] for found in detections), ground_truth.sizes, ground_truth, name)
    categories = ground_truth.category_names
    _refuse_unknown("category", (found["category_id"] for found in detections), categories, ground_truth, name)
    checked = [_detection(found, index, ground_truth, name) for index, found in enumerate(detections)]
    areas, broken = measure([found["segmentation"] for found in checked])
    for index in broken[:1]:
        where = f"entry {index} (image id {checked[index]['image_id']})"
        raise InputError(f"{name}: {where}: counts is not a valid RLE of its image; encode the mask with pycocotools")
    for found, area in zip(checked, areas.tolist(), strict=True):
        found["area"] = area
    tell_unusual(detections, name)
    return checked


def _by_id(entries: Sequence[object], kind: str, name: str) -> dict[Id, Mapping[str, Any]]:
    found: dict[Id, Mapping[str, Any]] = {}
    for index, entry in enumerate(entries):
        key = entry.get("id") if isinstance(entry, Mapping) else None
        if not isinstance(entry, Mapping) or not isinstance(key, (int, str)):
            raise InputError(f"{name}: {kind} number {index} of the list has no 'id'; every {kind} needs one")
        if key in found:
            raise InputError(f"{name}: {kind} id {key} occurs twice; make the ids unique")
        found[key] = entry
    return found


def _size(image: Mapping[str, Any], name: str) -> tuple[int, int]:
    height, width = image.get("height"), image.get("width")
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise InputError(f"{name}: image id {image['id']} has no valid 'height' and 'width'; add its size in pixels")
    return height, width


def _checked(
    annotations: Sequence[Mapping[str, Any]], sizes: Sizes, categories: Mapping[Id, str], name: str
) -> list[CheckedAnnotation]:
    """The annotations with their masks as RLE, numbered from 1: pycocotools takes the id 0 for "not matched"."""
    checked: list[CheckedAnnotation] = []
    problems: list[tuple[Id, str]] = []
    other_form = of_cvat = 0
    for annotation in annotations:
        try:
            truth = _truth(annotation, len(checked) + 1, sizes, categories)
        except ValueError as error:
            problems.append((annotation["id"], str(error)))
            continue
        other_form += any(truth[key] != annotation[key] for key in ("image_id", "category_id"))
        if truth["iscrowd"] and is_mask_of_cvat(annotation):
            truth["iscrowd"] = 0
            of_cvat += 1
        checked.append(truth)
    broken = find_broken([annotation["segmentation"] for annotation in checked])
    problems += [(checked[i]["source"], "counts is not a valid RLE of its image") for i in broken]
    if problems:
        listed = first_names((f"id {key}: {reason}" for key, reason in problems), _LISTED, "; ")
        raise InputError(f"{name}: {len(problems)} broken annotations, mend or remove them: {listed}")
    if other_form:
        warnings.warn(f"{name}: {other_form} x {OTHER_FORM}", stacklevel=2)
    if of_cvat:
        warnings.warn(f"{name}: {of_cvat} x {OF_CVAT}", stacklevel=2)
    return checked


def _truth(annotation: Mapping[str, Any], number: int, sizes: Sizes, categories: Mapping[Id, str]) -> CheckedAnnotation:
    """The checked annotation, numbered; ValueError with the reason where it is broken."""
    for key in ("image_id", "category_id", "area", "segmentation"):
        if key not in annotation:
            raise ValueError(f"no {key!r}")
    image, category = _same(annotation["image_id"], sizes), _same(annotation["category_id"], categories)
    if image is None:
        raise ValueError(f"image_id {annotation['image_id']!r} is not in 'images'")
    if category is None:
        raise ValueError(f"category_id {annotation['category_id']!r} is not in 'categories'")
    if not _is_number(annotation["area"]) or annotation["area"] < 0:
        raise ValueError("area is negative or no number")
    rle = to_rle(annotation["segmentation"], *sizes[image])
    return {
        "image_id": image,
        "category_id": category,
        "area": annotation["area"],
        "segmentation": rle,
        "iscrowd": _flag(annotation, "iscrowd"),
        "own_ignore": _flag(annotation, "ignore"),
        "id": number,
        "source": annotation["id"],
    }


def _flag(annotation: Mapping[str, Any], name: str) -> int:
    value = annotation.get(name)
    number = whole_number(value)
    if number is None and value is not None and not isinstance(value, (int, float)):
        raise ValueError(f"{name} is {value!r}, neither 0 nor 1")
    return int(bool(value if number is None else number))  # the text "0" is true


def _detection(found: Mapping[str, Any], index: int, ground_truth: GroundTruth, name: str) -> CheckedDetection:
    try:
        if not _is_number(found["score"]):
            raise ValueError("score is not a finite number")
        rle = to_rle(found["segmentation"], *ground_truth.sizes[found["image_id"]])
    except ValueError as error:
        raise InputError(f"{name}: entry {index} (image id {found['image_id']}): {error}") from None
    return {
        "image_id": found["image_id"],
        "category_id": found["category_id"],
        "score": found["score"],
        "id": index + 1,
        "iscrowd": 0,
        "segmentation": rle,
        "area": 0,  # not known yet
    }


def _refuse_unknown(
    kind: str, ids: Iterable[object], known: Mapping[Id, object], truth: GroundTruth, name: str
) -> None:
    unknown = list(dict.fromkeys(repr(key) for key in ids if not _known(key, known)))
    if unknown:
        raise InputError(
            f"{name}: {len(unknown)} {kind} ids are not in {truth.name}: {first_names(unknown, _LISTED)}; use the "
            "annotations that the detections were made for"
        )


def _same(key: object, known: Mapping[Id, object]) -> Id | None:
    """The id of a list that another list calls ``key``, be one of them the number and one its text; None if none is."""
    if _known(key, known):
        return key
    number = whole_number(key)
    return next((form for form in (number, str(number)) if form in known), None)


def _known(key: object, known: Mapping[Id, object]) -> TypeGuard[Id]:
    return isinstance(key, (int, str)) and key in known


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    with contextlib.suppress(OverflowError):
        return abs(float(value)) < 1e300  # and no NaN
    return False
