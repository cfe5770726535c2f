"""Wiring and services behind the command line, the gateway and the Python API."""
