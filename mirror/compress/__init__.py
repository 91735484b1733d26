"""A smaller encoder of a saved one, and what that costs, measured: one file for each format."""
