"""Services and wiring, which the command line, the gateway and the Python API use."""
