"""Host models, and how a model with its refiner is built or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.condinst import CondInst, CondInstConfig
from models.dance import DANCE, DanceConfig
from models.deepsnake import DeepSnake, DeepSnakeConfig
from models.host import Host
from models.mask_rcnn import MaskRCNN, MaskRCNNConfig
from models.pointrend import PointRend, PointRendConfig
from models.predictor import Predictor
from models.refinemask import RefineMask, RefineMaskConfig
from sharpcontour.config import SharpContourConfig
from sharpcontour.errors import InputError
from sharpcontour.io.plain import from_dict
from sharpcontour.refined_model import RefinedModel, build_refiner

MODELS: dict[str, tuple[Any, Any]] = {
    "condinst": (CondInst, CondInstConfig),
    "dance": (DANCE, DanceConfig),
    "deepsnake": (DeepSnake, DeepSnakeConfig),
    "mask_rcnn": (MaskRCNN, MaskRCNNConfig),
    "pointrend": (PointRend, PointRendConfig),
    "refinemask": (RefineMask, RefineMaskConfig),
}
"""Name of a model -> its class and its configuration's class."""

TITLES = {
    "condinst": "CondInst",
    "dance": "DANCE",
    "deepsnake": "DeepSnake",
    "mask_rcnn": "Mask R-CNN",
    "pointrend": "PointRend",
    "refinemask": "RefineMask",
}
"""How the models are written in pictures and tables."""

__all__ = [
    "DANCE",
    "MODELS",
    "TITLES",
    "CondInst",
    "CondInstConfig",
    "DanceConfig",
    "DeepSnake",
    "DeepSnakeConfig",
    "Host",
    "MaskRCNN",
    "MaskRCNNConfig",
    "PointRend",
    "PointRendConfig",
    "Predictor",
    "RefineMask",
    "RefineMaskConfig",
    "build_model",
    "load_model",
]


def build_model(
    host_config: Any, num_classes: int, sharpcontour: SharpContourConfig | None = None
) -> Host | RefinedModel:
    """A host model, behind it the refiner if ``sharpcontour`` is given.

    Args:
        host_config: configuration of one of :data:`MODELS`; its class says which.
        num_classes: of the data set.
        sharpcontour: the refiner's configuration.
    """
    host = next(model for model, config in MODELS.values() if type(host_config) is config)(host_config, num_classes)
    if sharpcontour is None:
        return host
    return RefinedModel(host, build_refiner(sharpcontour, host))


def load_model(path: str | Path, device: str | torch.device = "auto") -> Predictor:
    """A trained model in evaluation mode, from a checkpoint of ``scripts/train.py``.

    Args:
        path: of the checkpoint, or of a run's folder for its newest one.
        device: "auto" takes the GPU if there is one.

    Raises:
        InputError: where the file is missing, is no checkpoint, or does not fit the model it names, and where the
            device is not there.
    """
    path = _newest(Path(path))
    checkpoint = _read(path)
    config, categories = checkpoint["config"], checkpoint["categories"]
    if config["model"] not in MODELS:
        raise InputError(f"{path}: unknown model {config['model']!r}; this version has {', '.join(MODELS)}")
    try:
        host_config = from_dict(MODELS[config["model"]][1], config["host"], "host.")
        refiner = from_dict(SharpContourConfig, config["sharpcontour"], "sharpcontour.") if config["refine"] else None
    except (InputError, KeyError) as error:
        raise InputError(f"{path}: its configuration does not fit this version ({error})") from error
    host_config.backbone.weights = "none"  # the checkpoint has them
    model = build_model(host_config, len(categories), refiner)
    try:
        model.load_state_dict(checkpoint["model"])
    except RuntimeError as error:
        raise InputError(f"{path}: the weights do not fit the configuration in it ({_last_line(error)})") from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    data = config["data"]
    # The drawn images are used as they are, so theirs is the size the model knows.
    short_side = data["shapes_size"] if data["name"] == "shapes" else data["test_short_side"]
    resize = data.get("resize", "opencv")
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:  # torch has several for a device that is not there
        raise InputError(f"device {device}: cannot be used ({str(error).splitlines()[0]}); choose cpu") from error
    return Predictor(model.eval(), categories, short_side, data["test_max_side"], resize, config)


def _newest(path: Path) -> Path:
    """A checkpoint as it is; of a run's folder its newest."""
    if not path.is_dir():
        return path
    found = sorted(path.glob("checkpoints/step_*.pt")) or sorted(path.glob("step_*.pt"))
    if not found:
        raise InputError(f"{path}: no checkpoints/step_*.pt in this folder; give a run's folder or a checkpoint")
    return found[-1]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a checkpoint")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have their own
        kind = type(error).__name__  # its text is about torch.load
        raise InputError(
            f"{path}: a damaged checkpoint, or none ({kind}); scripts/convert.py reads other projects' weights"
        ) from error
    keys = checkpoint if isinstance(checkpoint, dict) else {}
    missing = [key for key in ("model", "config", "categories") if key not in keys]
    if missing:
        raise InputError(
            f"{path}: no checkpoint of this project, {missing[0]!r} is missing; bare weights are not enough"
        )
    return checkpoint


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
