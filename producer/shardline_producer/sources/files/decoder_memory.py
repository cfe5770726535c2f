"""The memory that decompressors of large windows may hold together in a process."""

from threading import Lock

# What a decompressor may always have. zstd needs no more without --long, and xz no more without a dictionary
# of its own.
SMALL = 1 << 27
LARGEST = 1 << 31


class WindowTooLarge(Exception):
    """A stream needs a window of `bytes` bytes, and the limit is less."""

    def __init__(self, needed: int, limit: int) -> None:
        super().__init__(f"it needs a window of {needed:,} bytes, and {limit:,} are allowed")
        self.needed = needed


class WindowsInUse(Exception):
    """Other streams hold the memory that a stream needs. They will release it."""


class DecoderMemory:
    """The windows over 128 MiB of all streams of a process: together at most `limit` bytes.

    The window of a stream is as large as who compressed it chose. Without a common limit the memory of a
    process would depend on how many such files are read at once.
    """

    def __init__(self, limit: int = LARGEST) -> None:
        self.limit = max(limit, SMALL)
        self._held = 0
        self._lock = Lock()

    def reserve(self, needed: int) -> None:
        """Reserve a window. Each is given back by `release`.

        Raises:
            WindowTooLarge: it is larger than the limit.
            WindowsInUse: the other windows leave less.
        """
        if needed > self.limit:
            raise WindowTooLarge(needed, self.limit)
        if needed <= SMALL:
            return
        with self._lock:
            if self._held + needed > self.limit:
                raise WindowsInUse(
                    f"it needs a window of {needed:,} bytes, and other files that are read now hold "
                    f"{self._held:,} of the {self.limit:,} that are allowed"
                )
            self._held += needed

    def release(self, needed: int) -> None:
        """Give a window of `reserve` back."""
        if needed > SMALL:
            with self._lock:
                self._held -= needed
