"""The worker: turns the documents of an attempt's topic into the shards of a dataset."""
