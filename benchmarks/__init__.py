"""Measured comparisons, each a module to run; see README.md."""
