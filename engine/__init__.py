"""What trains a model: configuration and recipes, processes, checkpoints, the loop, the log."""
