"""Trackers of experiments, one file each: they get the metrics of every epoch of a training."""
