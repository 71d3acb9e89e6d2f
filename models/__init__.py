"""Host models and rivals: built by name, or loaded from a checkpoint."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.host import HostBase
    from models.loading import load_model
    from models.predictor import Predictor
    from models.zoo import MODELS, build_model

__all__ = ["MODELS", "HostBase", "Predictor", "build_model", "load_model"]

# Commands name the models in their --help, by models.zoo: torch must not come with this file.
_MODULES = {
    "MODELS": "zoo",
    "HostBase": "host",
    "Predictor": "predictor",
    "build_model": "zoo",
    "load_model": "loading",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
