"""Host models and rivals: built by name, or loaded from a checkpoint."""

from models.host import Host
from models.loading import load_model
from models.predictor import Predictor
from models.zoo import MODELS, build_model

__all__ = ["MODELS", "Host", "Predictor", "build_model", "load_model"]
