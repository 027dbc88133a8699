"""Explanations of a network, one per file: functions from a subject to an explanation."""
