"""Sizes, durations and counts as text for people. Pure."""

from collections.abc import Mapping


def format_size(size: float) -> str:
    """Format a number of bytes: 512 B, 1.5 KiB, 2.0 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004 - the factor of the units
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_duration(seconds: float) -> str:
    """Format seconds: 59s, 3m 20s, 2h 05m."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 - minutes of an hour
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"


def format_counts(counts: Mapping[str, int]) -> str:
    """Format counts by reason in one line: `empty 31, below_min_score 252`, or `none`."""
    return ", ".join(f"{reason} {number:,}" for reason, number in counts.items()) or "none"
