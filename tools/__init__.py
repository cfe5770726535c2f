"""Generators of docs/, and the demo. Not shipped."""
