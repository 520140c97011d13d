"""Benchmarks: a plain loop, written as the paper and its authors' code do it, beside the engine. `python -m benchmarks --help`."""
