"""Paths that users write: what cannot be one, how messages show them, and opening regular files only."""

import errno
import os
import stat
from typing import BinaryIO

_SHOWN = 200
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class NotRegularFile(OSError):
    """The path names something else than a regular file: a folder, FIFO, socket or device."""


def path_fault(text: str) -> str | None:
    """Why no system has a file of this name, as the rest of a sentence; None when one may have."""
    if not text:
        return "is empty"
    if "\0" in text:
        return "holds the character NUL"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    return None


def shown_path(text: str | os.PathLike[str]) -> str:
    """The path for a message: in one line, with escapes for what cannot be printed, cut if it is long."""
    path = os.fspath(text)
    shown = path if path.isprintable() else repr(path)[1:-1]
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN // 2]}…{shown[-_SHOWN // 2 :]}"


def os_reason(error: OSError | ValueError) -> str:
    """The reason of an error of the operating system, without the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading. It blocks, but waits for no other process.

    Opening a FIFO waits until somebody writes to it, and opening a device may act on it. So the kind is
    checked before the file is opened, and again behind it, because the path may name another file by then.

    Raises:
        NotRegularFile: the path names something else.
        OSError: as `open`.
        ValueError: no file can have this name.
    """
    _check_regular(os.stat(path))  # noqa: PTH116 - it may be text
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_regular(os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
        raise NotRegularFile(errno.EINVAL, f"it is {kind}, not a regular file")
