"""Pictures of detections: before and after refinement with close-ups, and the course of one contour.

Images are (height, width, 3) uint8 RGB arrays, in and out; what is handed in is never drawn on.
"""

from eval.pictures.comparison import compare, draw_detections
from eval.pictures.course import evolution
from eval.pictures.drawing import save
from eval.pictures.examples import confident, largest_moves, select_examples

__all__ = ["compare", "confident", "draw_detections", "evolution", "largest_moves", "save", "select_examples"]
