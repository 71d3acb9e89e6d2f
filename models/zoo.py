"""All models by name, one line each, and how one is built. A new host is a folder of its own and a line here."""

from __future__ import annotations

from collections import UserDict
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sharpcontour.config import SharpContourConfig
from sharpcontour.errors import InputError

if TYPE_CHECKING:
    from models.host import HostBase
    from sharpcontour.refined_model import RefinedModel


class _Models(UserDict[str, Any]):
    """Classes by name; where only the name of a class stands, ``models/NAME/`` is imported once it is asked for."""

    def __getitem__(self, name: str) -> Any:
        if isinstance(self.data[name], str):
            self.data[name] = getattr(import_module(f"models.{name}"), self.data[name])
        return self.data[name]


MODELS = _Models(
    anymask="AnyMask",
    condinst="CondInst",
    dance="DANCE",
    deepsnake="DeepSnake",
    mask_rcnn="MaskRCNN",
    pointrend="PointRend",
    refinemask="RefineMask",
)
"""Name on the command line and in checkpoints -> class, which brings title, configuration and presets."""


def host_class(name: str) -> type[HostBase]:
    """The class of a model by its name.

    Raises:
        InputError: for an unknown name, and for a class that lacks a part that training or evaluation will need.
    """
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}; valid: {', '.join(MODELS)}")
    from models.host import missing_parts

    lacking = missing_parts(MODELS[name])
    if lacking:
        raise InputError(
            f"model {name}: {MODELS[name].__name__} lacks {', '.join(lacking)}; docs/extending.md says what"
        )
    return MODELS[name]


def title_of(name: str) -> str:
    """How a model is written in pictures and tables; a name that is not in :data:`MODELS` stays as it is."""
    return MODELS[name].title if name in MODELS else name


def build_model(
    host_config: Any, num_classes: int, sharpcontour: SharpContourConfig | None = None
) -> HostBase | RefinedModel:
    """A host model, behind it the refiner if ``sharpcontour`` is given.

    Args:
        host_config: configuration of one of :data:`MODELS`; its class says which.
        num_classes: of the data set.
        sharpcontour: the refiner's configuration.

    Raises:
        InputError: where no model has such a configuration or several have, or settings do not go together.
    """
    names = [name for name, model in MODELS.items() if model.config_type is type(host_config)]
    if not names:
        raise InputError(f"no model in models/zoo.py has a configuration of type {type(host_config).__name__}")
    if len(names) > 1:
        raise InputError(
            f"the models {' and '.join(names)} have configurations of one class, {type(host_config).__name__}, which "
            "is to say which of them is meant; derive a class of its own for each config_type"
        )
    name = names[0]
    make: Any = host_class(name)
    host: HostBase = make(host_config, num_classes)
    unset = [key for key in ("config", "fine_channels", "controller_shape") if not hasattr(host, key)]
    if unset:
        raise InputError(f"model {name}: its __init__ sets no {' and no '.join(unset)}; see docs/extending.md")
    if sharpcontour is None:
        if not host.finds:
            raise InputError(f"model {name}: finds no objects and does nothing without a refiner; add --refine")
        return host
    from models.polytransform import PolyTransform
    from sharpcontour.refined_model import RefinedModel, build_refiner

    return RefinedModel(host, build_refiner(sharpcontour, host, [PolyTransform]))
