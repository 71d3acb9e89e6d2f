"""DeepSnake: FCOS, extreme points, octagons and circular convolutions."""

from models.deepsnake.config import DeepSnakeConfig
from models.deepsnake.model import DeepSnake

__all__ = ["DeepSnake", "DeepSnakeConfig"]
