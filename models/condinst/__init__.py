"""CondInst: instance masks by convolutions that are made for each instance."""

from models.condinst.config import CondInstConfig
from models.condinst.model import CondInst

__all__ = ["CondInst", "CondInstConfig"]
