"""Host models and rivals: built by name, or loaded from a checkpoint."""

from models.host import HostBase
from models.loading import load_model
from models.predictor import Predictor
from models.zoo import MODELS, build_model

__all__ = ["MODELS", "HostBase", "Predictor", "build_model", "load_model"]
