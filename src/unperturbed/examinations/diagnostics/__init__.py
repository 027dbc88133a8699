"""Diagnostics of a network around its data, one per file: functions from a subject to a finding."""
