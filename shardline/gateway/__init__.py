"""The HTTP gateway: Clara's dataset API on Shardline's jobs and sources, and a page for people."""
