"""The staged segments of assembled jobs: an index of every record, sorted rows, and sidecars."""
