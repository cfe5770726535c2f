"""The front door: command line and wiring."""
