"""What producer, consumer and front door share: models, ports, adapters."""

__version__ = "0.1.0"
