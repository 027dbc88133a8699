"""One run: recipe, loop, checkpoints, alarm."""
