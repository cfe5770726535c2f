"""Durations in messages: short ones keep a tenth, and none is shown as 0 s."""

_SHORTEST_SHOWN = 0.05
_SHOWN_WHOLE = 10.0


def in_seconds(pause: float) -> str:
    """When a pause ends: `now`, `in 0.3 s`, `in 12 s`."""
    return "now" if pause < _SHORTEST_SHOWN else f"in {seconds_text(pause)}"


def seconds_text(seconds: float) -> str:
    """A duration: `less than 0.1 s`, `0.3 s`, `12 s`."""
    if seconds < _SHORTEST_SHOWN:
        return "less than 0.1 s"
    return f"{seconds:.0f} s" if seconds >= _SHOWN_WHOLE or seconds == int(seconds) else f"{seconds:.1f} s"
