"""The settings of every process, by subject."""
