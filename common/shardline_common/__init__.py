"""Ports, job and dataset formats, adapters and runtime helpers that producer and consumer share."""

__version__ = "0.1.0"
