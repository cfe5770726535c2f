"""Embedders, which turn the text of a query into a vector."""
