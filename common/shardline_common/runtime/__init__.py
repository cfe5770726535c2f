"""What every process needs to run: tasks, threads, retries, signals, failpoints, files."""
