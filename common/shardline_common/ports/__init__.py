"""The ports: what Shardline needs from a broker, an object store and a clock."""
