"""Filters: pure functions that keep a document or drop it with a reason."""
