"""Classifiers that normalise inside, and the reading and writing of weights."""
