"""A job: its message, its state, its names, and the messages of its topic."""
