"""Honest robust accuracy: a verdict per example, verified, with an interval."""
