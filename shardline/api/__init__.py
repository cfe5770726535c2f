"""The Python API. Import it from `shardline`: the files of this room can change, the names there do not."""
