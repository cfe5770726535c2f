"""Judging documents by the filters of their job: one function for workers, previews and streams."""
