"""The filters that are installed: entry points of the group `shardline.filters`, loaded when a job names one.

Filters of Shardline and of other packages are found in the same way.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardline_common.curation.filter import AnyFilterKind

GROUP = "shardline.filters"


class FilterUnknown(LookupError):
    """No package that is installed has a filter of this name. `names` are those that there are."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(f"no filter of the name {name} is installed")
        self.names = names


class FilterUnusable(Exception):
    """A filter is installed, and cannot be used: the message says why."""


@cache
def _installed() -> dict[str, tuple[EntryPoint, ...]]:
    # A package may be found twice, in the tree and as it is installed: only what it names counts.
    found: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        owner = point.dist.name if point.dist is not None else ""
        found.setdefault(point.name, {}).setdefault((owner, point.value), point)
    return {name: tuple(points.values()) for name, points in sorted(found.items())}


def filter_names() -> tuple[str, ...]:
    """The names of all filters that are installed, sorted. None of them is loaded."""
    return tuple(_installed())


@cache
def load_filter(name: str) -> "AnyFilterKind":
    """The filter of a name.

    Raises:
        FilterUnknown: no package has it.
        FilterUnusable: two packages have it, or it cannot be loaded.
    """
    from shardline_common.curation.filter import FilterKind

    points = _installed().get(name, ())
    if not points:
        raise FilterUnknown(name, filter_names())
    if len(points) > 1:
        owners = " and ".join(sorted(map(_owner, points)))
        raise FilterUnusable(f"{owners} both have a filter of the name {name}: uninstall one of them")
    point = points[0]
    try:
        kind = point.load()
    except Exception as error:
        # Whatever the module of another package raises: the job cannot be judged here, nothing else fails.
        raise FilterUnusable(
            f"the filter {name} of {_owner(point)} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(kind, FilterKind):
        raise FilterUnusable(f"the filter {name} of {_owner(point)} is no FilterKind: {point.value}")
    if kind.name != name:
        raise FilterUnusable(f"the filter {name} of {_owner(point)} calls itself {kind.name}")
    return kind


def _owner(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
