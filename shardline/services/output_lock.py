"""The locks of a local output: one process for each job, and any number of jobs.

A run holds two locks, both by flock(2), which end with their process. The lock of its job, alone: two runs
of one job would delete each other's leftovers. And the lock of the output, shared with the runs of other
jobs: who gets it alone knows that nobody else writes, and removes the temporary files of killed runs. A run
of version 0.1 holds it alone from its start to its end.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shardline_common.errors import UsageError
from shardline_common.runtime.paths import os_reason, shown_path
from shardline_common.storage.directory import HIDDEN, LOCK

# Another run holds the output alone only while it removes temporary files.
_TRIES, _PAUSE_SECONDS = 40, 0.05


@contextmanager
def locked_output(output: str, job_id: str = "") -> Iterator[bool]:
    """Lock a job in a local output against a second run of it; yields whether no other run can write to it.

    On S3 there is no lock, and create-only puts make concurrent runs safe.

    Raises:
        UsageError: another run holds the lock, or the folder cannot be written.
    """
    if output.startswith("s3://") or os.name != "posix":
        yield False
        return
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _unwritable(output, error) from None
    with _opened(output, folder / LOCK) as shared:
        _share(output, folder, shared)
        with _locked_job(output, folder / f"{LOCK}-{job_id}", job_id):
            yield True


@contextmanager
def _opened(output: str, path: Path) -> Iterator[int]:
    try:
        # Not O_WRONLY: opening a FIFO of this name would wait for a reader.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except (OSError, ValueError) as error:
        raise _unwritable(output, error) from None
    try:
        yield file
    finally:
        os.close(file)


def _share(output: str, folder: Path, file: int) -> None:
    """Remove what killed runs left if nobody else writes to the output, and share its lock."""
    import fcntl  # noqa: PLC0415 - not on Windows

    for _ in range(_TRIES):
        if _try_lock(output, file, fcntl.LOCK_EX):
            shutil.rmtree(folder / HIDDEN, ignore_errors=True)
        # The change from alone to shared is not atomic: another run may get the lock alone in between.
        if _try_lock(output, file, fcntl.LOCK_SH):
            return
        time.sleep(_PAUSE_SECONDS)
    raise _in_use(output, "")


@contextmanager
def _locked_job(output: str, path: Path, job_id: str) -> Iterator[None]:
    import fcntl  # noqa: PLC0415 - not on Windows

    while True:
        with _opened(output, path) as file:
            if not _try_lock(output, file, fcntl.LOCK_EX):
                raise _in_use(output, job_id)
            if not _is_at(path, file):
                # The run that held it has removed the file. Another run may lock a new one of this name.
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _try_lock(output: str, file: int, how: int) -> bool:
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UsageError(
            f"{shown_path(output)} cannot be locked: {os_reason(error)}",
            hint="choose a folder for --output on a file system with locks",
        ) from None
    return True


def _in_use(output: str, job_id: str) -> UsageError:
    about = f" the job {job_id}" if job_id else ""
    return UsageError(
        f"another run is writing{about} to {shown_path(output)}",
        hint="wait for it to end, or choose another --output",
    )


def _unwritable(output: str, error: OSError | ValueError) -> UsageError:
    hint = "choose a folder for --output that can be created and written"
    return UsageError(f"{shown_path(output)} cannot be written: {os_reason(error)}", hint=hint)
