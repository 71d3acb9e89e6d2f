"""Entry points of ``torch.hub``: the trained refiner of the package, and the host models.

    refiner = torch.hub.load("OWNER/REPOSITORY", "refiner")
    refiner = torch.hub.load(".", "refiner", source="local")  # in a clone
    sharp = refiner.refine("photo.jpg", masks)
    model = torch.hub.load("OWNER/REPOSITORY", "mask_rcnn", checkpoint="runs/mask_rcnn_refine_shapes")
    found = model.predict("photo.jpg")

Only the refiner comes with weights. The host models stand in folders called ``models`` and ``data``, names that other
repositories use as well: in one process only one of them can be loaded. The refiner stands in ``sharpcontour`` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch.hub.list names whatever is callable here
    from collections.abc import Callable
    from typing import Any

    from models import Predictor
    from sharpcontour import MaskRefiner

dependencies = ["torch", "torchvision", "numpy", "cv2", "pycocotools", "tqdm"]


def refiner(path: str | None = None, device: str = "cpu", zoom: bool = False) -> MaskRefiner:
    """The trained refiner of masks from anywhere: ``refiner.refine(image, masks)``.

    Args:
        path: of a file of weights, as ``scripts/export.py`` writes it; None: the weights in the repository.
        device: that it computes on; "auto" takes the first of cuda, mps and cpu that is there.
        zoom: whether large objects are looked at again, in tiles of 256 pixels along their outlines.

    Raises:
        InputError: where the file cannot be used, and where the device is not there.
    """
    from sharpcontour import load_refiner

    return load_refiner(path, device, zoom)


def _entry(name: str, title: str) -> Callable[..., Predictor]:
    """The entry point of a model in ``models/zoo.py``."""

    def entry(
        refine: bool = True, num_classes: int | None = None, checkpoint: str | None = None, device: str = "cpu"
    ) -> Predictor:
        return _load(name, refine, num_classes, checkpoint, device)

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"""{title}, with SharpContour behind it or without: ``predict(image)``, and ``model`` to train.

    No weights are published: without a checkpoint the model is untrained, of random weights, with the settings for
    COCO. It is in evaluation mode, and resizes images to 800 pixels along the shorter side, 1333 along the longer.

    Args:
        refine: whether SharpContour stands behind the host.
        num_classes: of the data set; None: 80, or those of the checkpoint.
        checkpoint: of ``scripts/train.py`` or ``scripts/convert.py``, or the folder of a run.
        device: that it computes on; "auto" takes the first of cuda, mps and cpu that is there.

    Raises:
        InputError: where the checkpoint cannot be read or is not what is asked for, and where the device is not there.
    """
    return entry


def _load(name: str, refine: bool, num_classes: int | None, checkpoint: str | None, device: str) -> Predictor:
    _check_names()
    from models import load_model
    from sharpcontour import InputError

    if checkpoint is None:
        return _untrained(name, refine, 80 if num_classes is None else num_classes, device)
    model = load_model(checkpoint, device)
    own, count = model.config["model"], len(model.class_names)
    if own != name:
        raise InputError(f"{checkpoint}: is a checkpoint of {own}; load it by that name")
    if num_classes not in (None, count):
        raise InputError(f"{checkpoint}: has {count} classes, not {num_classes}; leave num_classes out")
    if refine and not model.config["refine"]:
        raise InputError(f"{checkpoint}: has no refiner; give refine=False, or train with --refine")
    if not refine and model.config["refine"]:
        refined: Any = model.model
        model.model, model.config = refined.host, {**model.config, "refine": False}
    return model


def _untrained(name: str, refine: bool, num_classes: int, device: str) -> Predictor:
    from models import MODELS, Predictor, build_model
    from sharpcontour import InputError, SharpContourConfig
    from sharpcontour.io.device import choose_device

    if num_classes < 1:
        raise InputError(f"num_classes is {num_classes}; it must be 1 or more")
    config = MODELS[name].config_type()
    config.backbone.weights = "none"
    model = build_model(config, num_classes, SharpContourConfig() if refine else None)
    categories = [{"id": k, "name": str(k)} for k in range(1, num_classes + 1)]
    return Predictor(model.to(choose_device(device)), categories, short_side=800, max_side=1333)


def _check_names() -> None:
    """ImportError where ``models`` or ``data`` of this process are another repository's."""
    from importlib import import_module
    from pathlib import Path

    root = Path(__file__).resolve().parent
    for name in ("models", "data"):
        module = import_module(name)
        found = Path(module.__file__ or "").resolve().parent  # of a namespace the folder that one is in
        if found != root / name:
            raise ImportError(
                f"{name} is already imported from {found}, and this repository has a folder of that name too; load its "
                "host models in a process of their own"
            )


condinst = _entry("condinst", "CondInst")
dance = _entry("dance", "DANCE")
deepsnake = _entry("deepsnake", "DeepSnake")
mask_rcnn = _entry("mask_rcnn", "Mask R-CNN")
pointrend = _entry("pointrend", "PointRend")
refinemask = _entry("refinemask", "RefineMask")
