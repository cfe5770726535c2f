"""The HTTP gateway: Clara's dataset API on jobs and sources, and HTML pages that show the jobs."""
