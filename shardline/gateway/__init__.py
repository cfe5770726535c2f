"""The HTTP gateway: Clara's dataset API on Shardline's jobs and sources, and HTML pages that show the jobs."""
