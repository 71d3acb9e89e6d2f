"""FCOS, the one-stage detector that CondInst, DANCE and DeepSnake share."""
