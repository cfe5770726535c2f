"""Helpers of every process: tasks, threads, retries, signals, failpoints, files, time."""
