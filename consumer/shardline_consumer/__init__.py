"""Turns the documents of a topic into the shards of a dataset."""
