"""Classes of published models: a checkpoint of another project does not name them."""

from __future__ import annotations

from data.annotations import Category
from data.cityscapes import CLASSES

COCO_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Category ids from 1 to 90 that COCO never used; torchvision's models predict them all the same."""

_COCO = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier,
toothbrush"""


def published_categories(count: int, every_id: bool) -> list[Category]:
    """Categories of a model with ``count`` classes: COCO's, Cityscapes', or numbered ones.

    Args:
        count: of the classes, the background left out.
        every_id: whether class k is category id k + 1, unused ids included (torchvision).
    """
    names = [name.strip() for name in _COCO.replace("\n", " ").split(",")]
    ids = [k for k in range(1, 91) if k not in COCO_UNUSED]
    known = dict(zip(ids, names, strict=True))
    if every_id and count == 90:
        return [{"id": k, "name": known.get(k, f"(unused {k})")} for k in range(1, 91)]
    if not every_id and count == 80:
        return [{"id": k, "name": known[k]} for k in ids]
    if not every_id and count == 8:
        return [{"id": k, "name": name} for k, name in CLASSES.items()]
    return [{"id": k, "name": f"class {k}"} for k in range(1, count + 1)]
