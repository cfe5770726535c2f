"""The cores that this process may use: by its affinity, and by the CPU limit of its container."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def available_cores(root: Path = Path("/")) -> int:
    """The cores that this process may use, at least 1; a container's share of a core counts as one.

    Neither `os.cpu_count` nor the affinity knows the limit of a container. With more processes than it has
    cores, all of them are stopped for the rest of each period of the scheduler.

    Args:
        root: the root of the file system with /proc and /sys; another one in tests.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_limits(root)]))


def cores_for(processes: int | None) -> int:
    """The processes or threads of a setting: so many as it names, else one for each core."""
    return processes or available_cores()


def _limits(root: Path) -> Iterator[int]:
    """The limits of this process's control groups and of those above them, in whole cores."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        # Not on Linux.
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folder, read = root / "sys/fs/cgroup", _version_2
        elif "cpu" in controllers.split(","):
            folder, read = root / "sys/fs/cgroup" / controllers, _version_1
        else:
            continue
        # A container sees its own group as the root: the path is that of the host, and not there.
        inside = PurePosixPath(path.lstrip("/"))
        for group in (inside, *inside.parents):
            if (found := read(folder / group)) is not None:
                yield found


def _version_2(group: Path) -> int | None:
    quota, _, period = _text(group / "cpu.max").partition(" ")
    return _cores(quota, period)


def _version_1(group: Path) -> int | None:
    return _cores(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us"))


def _cores(quota: str, period: str) -> int | None:
    # "max" or -1: there is no limit.
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return None
    return math.ceil(int(quota) / int(period))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
