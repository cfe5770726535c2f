"""Decompression of a stream in pieces of bounded size: no input can fill the memory."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from shardline_producer.sources.files.compressed_members import MEMBERS, CorruptStream, Member
from shardline_producer.sources.files.decoder_memory import DecoderMemory, WindowsInUse, WindowTooLarge
from shardline_producer.sources.files.detected_encoding import is_text
from shardline_producer.sources.files.file_format import Compression

_TRUNCATED = "the file ends in the middle"
_SHOWN_BYTES = 8
# A head of 64 KiB may become gigabytes.
_START_OF_TEXT = 1 << 20


class EmptyStream(Exception):
    """The stream has no member with data. Compressing an empty text makes one."""


class Decompressor(Protocol):
    """Decompresses one stream, which is passed in chunks.

    `bytes_in` and `bytes_out` count the bytes decompressed so far, before and after decompression. `ignored`
    counts those behind the end of the compressed data, which belong to nothing.
    """

    bytes_in: int
    bytes_out: int
    ignored: int

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The decompressed bytes of the chunk, in pieces.

        Raises:
            CorruptStream: it is damaged.
            WindowTooLarge, WindowsInUse: as `DecoderMemory.reserve`.
        """

    def finish(self) -> None:
        """Check that the stream ended with the last chunk.

        Raises:
            CorruptStream: it is truncated.
            EmptyStream: nothing was compressed, not even an empty text.
        """

    def close(self) -> None:
        """Release the memory. It may be called several times."""


class PlainDecompressor:
    """Implements `Decompressor` for a stream without compression."""

    def __init__(self) -> None:
        self.bytes_in = self.bytes_out = self.ignored = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The chunk itself."""
        self.bytes_in = self.bytes_out = self.bytes_in + len(chunk)
        yield chunk

    def finish(self) -> None:
        """Accept every end: a plain stream may end anywhere."""

    def close(self) -> None:
        """There is nothing to release."""


class MemberDecompressor:
    """Implements `Decompressor` for one or more members of a compression.

    Zero bytes between members and behind the last one are padding, as of blocks of tapes and disks. What else
    comes behind the last whole member is counted and not read, as gzip, bzip2 and xz do it, unless a member
    begins in it: then the stream is damaged between two members.
    """

    def __init__(self, compression: Compression, memory: DecoderMemory) -> None:
        self.bytes_in = self.bytes_out = self.ignored = 0
        self._name = compression
        self._format = MEMBERS[compression]
        self._memory = memory
        self._reserved = 0
        self._member: Member | None = None
        # The first bytes of what may be a member, which do not show it yet.
        self._start = b""
        self._zeros = 0
        self._members = 0
        # The bytes of the members that ended.
        self._ended = 0
        self._has_data = False
        # The last bytes that were ignored, in which a member may begin.
        self._tail = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Pieces as the members give them."""
        while chunk:
            if self._member is None:
                chunk = self._begin(chunk)
                if self._member is None:
                    return
            member = self._member
            for piece in member.feed(chunk):
                self.bytes_in = self._ended + member.consumed
                self.bytes_out += len(piece)
                yield piece
            rest = member.rest
            chunk = rest or b""
            if rest is not None:
                self._ended = self.bytes_in
                self._has_data |= member.has_data
                self._members += 1
                self._member = None
                self.close()

    def _begin(self, chunk: bytes) -> bytes:
        """Open the next member, and return what it has of the chunk; without one, nothing is left of it."""
        if not self.ignored and not self._start:
            found = chunk.lstrip(b"\0")
            self._zeros += len(chunk) - len(found)
            chunk = found
        if not chunk:
            return b""
        if not self._members and self._zeros:
            raise CorruptStream(f"it begins with {self._zeros} zero bytes")
        start, self._start = self._start + chunk, b""
        begins = False if self.ignored else self._format.begins(start)
        if begins:
            self._member = self._format.open(self._reserve)
            return start
        if begins is None:
            self._start = start
        elif not self._members:
            shown = start[:_SHOWN_BYTES].hex(" ")
            raise CorruptStream(f"it begins with the bytes {shown}, which are not those of {self._name}")
        else:
            self._ignore(start)
        return b""

    def _ignore(self, data: bytes) -> None:
        self.ignored += len(data)
        data = self._tail + data
        if any(magic in data for magic in self._format.inside):
            raise CorruptStream("bytes that belong to nothing stand between two parts of it")
        self._tail = data[1 - max(map(len, self._format.inside)) :]

    def _reserve(self, needed: int) -> None:
        self._memory.reserve(needed)
        self._reserved = needed

    def finish(self) -> None:
        """Check that there is a member with data, and that the last one is whole."""
        if self._member is not None or self._start:
            raise CorruptStream(_TRUNCATED)
        if self._has_data:
            return
        if self._members:
            raise EmptyStream("holds no frame with data")
        raise EmptyStream(f"holds {self._zeros} zero bytes" if self._zeros else "has 0 bytes")

    def close(self) -> None:
        """Release the memory of the window."""
        self._memory.release(self._reserved)
        self._reserved = 0


def decompressor(compression: Compression, memory: DecoderMemory | None = None) -> Decompressor:
    """The decompressor of a compression."""
    if compression == "none":
        return PlainDecompressor()
    return MemberDecompressor(compression, memory or DecoderMemory())


def detect_compression(path: str, head: bytes) -> Compression:
    """The compression of a file that begins with `head`: by its first bytes, whatever its name.

    Where they are those of no compression, the name decides: a damaged file is not a text. A text is.
    """
    for compression, members in MEMBERS.items():
        if members.begins(head):
            return compression
    named = named_compression(path)
    return "none" if head and is_text(head) else named


def named_compression(path: str) -> Compression:
    """The compression that the name of a file says."""
    return next((compression for end, compression in _SUFFIXES if path.lower().endswith(end)), "none")


def start_of_text(compression: Compression, head: bytes, memory: DecoderMemory | None = None) -> bytes:
    """What the first bytes of a file hold, as far as they are sound: the read itself reports the rest."""
    found = b""
    stream = decompressor(compression, memory)
    try:
        with suppress(CorruptStream, WindowTooLarge, WindowsInUse):
            for piece in stream.feed(head):
                found += piece
                if len(found) >= _START_OF_TEXT:
                    break
    finally:
        stream.close()
    return found[:_START_OF_TEXT]


_SUFFIXES: tuple[tuple[str, Compression], ...] = (
    (".gz", "gzip"),
    (".zst", "zstd"),
    (".xz", "xz"),
    (".bz2", "bzip2"),
)
