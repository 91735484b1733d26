"""A run from texts to a measured, saved encoder."""
