"""Exchanged arguments for the fuzzer of the Python API."""
