"""The spool folder of a process, locked while the process runs. Folders of killed processes are removed."""

import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from shardline_common.errors import SpoolError
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.spool.file import spool_error

_log = logging.getLogger(__name__)
_PREFIX = "shardline-"
_LOCK = ".lock"


@contextmanager
def spool_folder(parent: Path) -> Iterator[Path]:
    """A private folder below `parent`, removed at the end. Folders of killed processes are removed first.

    Raises:
        SpoolError: the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            sweep_spool(parent)
            folder = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent, ignore_cleanup_errors=True)
            path = Path(stack.enter_context(folder))
            stack.enter_context(_locked(path))
        except OSError as error:
            raise spool_error(parent, error) from error
        yield path


def spool_limit(parent: Path, wanted: int, reserve: int) -> int:
    """The bytes that the spool may take: `wanted`, or fewer if the disk has fewer free beyond `reserve`.

    Raises:
        SpoolError: no more than the reserve is free.
    """
    try:
        free = shutil.disk_usage(parent).free - reserve
    except OSError as error:
        raise spool_error(parent, error) from error
    if free <= 0:
        raise SpoolError(
            f"the disk of {parent} has less than {reserve} bytes free",
            hint="free disk space there, set SHARDLINE_SPOOL_DIR to another folder, or lower "
            "SHARDLINE_SPOOL_RESERVE_BYTES",
        )
    if free < wanted:
        _log.warning(
            "the spool may take %d bytes instead of %d: the disk of %s is small", free, wanted, parent
        )
    return min(wanted, free)


def register_spool_gauges(metrics: Metrics, folder: Path, limit: int) -> None:
    """Set the gauges of the spool at each scrape: its limit, its size, and the free space of its disk."""
    metrics.follow("spool_limit_bytes", lambda: limit)
    metrics.follow("spool_written_bytes", lambda: _written(folder))
    metrics.follow("spool_disk_free_bytes", lambda: _free(folder))


def _written(folder: Path) -> float:
    size = 0
    # Files are created and removed meanwhile.
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                size += entry.stat().st_size
    return size


def _free(folder: Path) -> float:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0.0


def sweep_spool(parent: Path) -> list[Path]:
    """Remove the spool folders of dead processes below `parent`. Returns the removed folders."""
    if sys.platform == "win32":
        return []
    removed = []
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        if _is_free(lock):
            _log.info("removing %s of a killed process", lock.parent)
            shutil.rmtree(lock.parent, ignore_errors=True)
            removed.append(lock.parent)
    return removed


def _is_free(lock: Path) -> bool:
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    import fcntl  # noqa: PLC0415 - not on Windows

    handle, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "rb") as file:
        # Lock the file before it gets its name: a sweep would remove a folder whose lock is free.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path(name).rename(folder / _LOCK)
        yield
