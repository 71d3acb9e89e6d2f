"""Classes of published models, which other projects' checkpoints do not name; whether two lists of classes agree."""

from __future__ import annotations

from collections.abc import Sequence

from data.annotations import Category
from data.cityscapes import CLASSES
from data.lvis import SYNSETS
from sharpcontour.errors import InputError

COCO_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Category ids from 1 to 90 that COCO never used; torchvision's models predict them all the same."""

_COCO = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier,
toothbrush"""

COCO = dict(
    zip(
        (k for k in range(1, 91) if k not in COCO_UNUSED),
        (name.strip() for name in _COCO.replace("\n", " ").split(",")),
        strict=True,
    )
)
"""COCO's category id -> name."""


def published_categories(count: int, every_id: bool) -> list[Category]:
    """Categories of a model with ``count`` classes: COCO's, Cityscapes', or numbered ones.

    Args:
        count: of the classes, the background left out.
        every_id: whether class k is category id k + 1, unused ids included (torchvision).
    """
    if every_id and count == 90:
        return [{"id": k, "name": COCO.get(k, f"(unused {k})")} for k in range(1, 91)]
    if not every_id and count == 80:
        return [{"id": k, "name": name} for k, name in COCO.items()]
    if not every_id and count == 8:
        return [{"id": k, "name": name} for k, name in CLASSES.items()]
    return [{"id": k, "name": f"class {k}"} for k in range(1, count + 1)]


def same_class(one: Category, other: Category) -> bool:
    """Whether two categories of one id mean one class: by name, or both COCO's of that id, by its name or synset.

    LVIS has names of its own for COCO's categories.
    """
    return one["id"] == other["id"] and (one["name"] == other["name"] or (_is_coco(one) and _is_coco(other)))


def _is_coco(category: Category) -> bool:
    key = category["id"]
    return key in COCO and (category["name"] == COCO[key] or category.get("synset") == SYNSETS[key])


def check_same_classes(train: Sequence[Category], val: Sequence[Category], files: tuple[str, str]) -> None:
    """InputError, with the names of both files, unless two splits have the same categories, in ids and names."""
    if [c["id"] for c in train] != [c["id"] for c in val]:
        raise InputError(
            f"{files[0]} has {len(train)} categories, {files[1]} {len(val)}, and their ids differ; "
            "give both files the same list of categories"
        )
    for one, other in zip(train, val, strict=True):
        if not same_class(one, other):
            raise InputError(
                f"category {one['id']} is {one['name']} in {files[0]} and {other['name']} in {files[1]}, so what is "
                "learned would be scored as something else; give both files the same list of categories"
            )
