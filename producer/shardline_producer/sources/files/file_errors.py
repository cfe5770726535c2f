"""The errors of files: what the operating system answers, as sentences with the name of the file."""

import errno
import os

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.runtime.paths import NotRegularFile, os_reason, shown_path

# The file system or the process lacks something that may come back: a server, file handles, memory.
_TRANSIENT = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.EMFILE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.ETIMEDOUT,
    getattr(errno, "EHOSTDOWN", errno.EHOSTUNREACH),
}

REPLACE_DAMAGED = "replace the damaged or truncated file and submit a new job"
SUBMIT_NEW_JOB = "submit a new job: this one may have rows of the bytes that were there before"


def source_invalid(message: str, hint: str | None = None) -> JobFailed:
    """The error for a file that cannot be read."""
    return JobFailed(FailureCode.SOURCE_INVALID, message, hint=hint)


class OtherEncoding(JobFailed):
    """A text file is not UTF-8, and the job names no encoding. `encoding`: the likeliest one."""

    def __init__(self, message: str, encoding: str) -> None:
        hint = f'set "encoding": "{encoding}" in source, and look at the texts with `shardline preview`'
        super().__init__(FailureCode.SOURCE_INVALID, message, hint=hint)
        self.encoding = encoding


def source_changed(name: str, how: str = "") -> JobFailed:
    """The error for a file that has changed since the job was planned. `how` says what shows it."""
    return JobFailed(
        FailureCode.SOURCE_CHANGED,
        f"{shown_path(name)} changed after the job was planned{': ' if how else ''}{how}",
        hint="put the file back as it was and retry the job, or submit a new job",
    )


def unreadable(path: str | os.PathLike[str], error: OSError | ValueError) -> JobFailed | SourceUnavailable:
    """The error for a file that the system does not read: SourceUnavailable if a later try may succeed."""
    message = f"{shown_path(path)} cannot be read: {os_reason(error)}"
    if isinstance(error, OSError) and error.errno in _TRANSIENT:
        return SourceUnavailable(message, hint="check the file system, and the limits of the process")
    if isinstance(error, NotRegularFile):
        return source_invalid(message, "name regular files; write what a program prints to a file first")
    if isinstance(error, PermissionError):
        return source_invalid(message, "give the user of this process the right to read it")
    return source_invalid(message)
