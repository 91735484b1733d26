"""Texts, and how they become batches: sources, cleaning, views, the data module."""
