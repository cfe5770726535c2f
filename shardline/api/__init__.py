"""The Python API. Import it from `shardline`, whose names are stable; the files of this room may change."""
