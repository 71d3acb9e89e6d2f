"""What DANCE and DeepSnake share: circular convolutions, polygons, and targets from outlines."""
