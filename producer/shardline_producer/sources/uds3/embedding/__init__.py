"""Embedders: how the text of a query becomes a vector."""
