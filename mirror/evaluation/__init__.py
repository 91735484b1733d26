"""How good the vectors are: test sets, intervals and tests, contamination, geometry."""
