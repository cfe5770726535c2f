"""Decompression of a stream in small pieces, so that no input, however made, fills the memory."""

import zlib
from collections.abc import Iterator
from typing import Protocol

import zstandard

_PIECE = 4096
_OUT = 1 << 20


class CorruptStream(Exception):
    """The stream is no valid gzip or zstd, or ends in the middle."""


class Decompressor(Protocol):
    """Feed it chunks; `finish` raises CorruptStream when the stream is not whole.

    `taken` and `given` count the bytes that went in and came out.
    """

    taken: int
    given: int

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What this chunk decompresses to, in pieces."""

    def finish(self) -> None:
        """The stream has ended."""


class Plain:
    """No compression."""

    def __init__(self) -> None:
        self.taken = self.given = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The chunk."""
        self.taken = self.given = self.taken + len(chunk)
        yield chunk

    def finish(self) -> None:
        """A plain stream is always whole."""


class Gzip:
    """Gzip, of one or more members."""

    def __init__(self) -> None:
        self.taken = self.given = 0
        self._member = zlib.decompressobj(wbits=31)
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Plain bytes, at most 1 MiB a piece."""
        while chunk:
            if self._member.eof:
                # Zero bytes may pad the end of the last member.
                chunk = chunk.lstrip(b"\0")
                self._member, self._begun = zlib.decompressobj(wbits=31), False
                continue
            self._begun = True
            try:
                plain = self._member.decompress(chunk, _OUT)
            except zlib.error as error:
                raise CorruptStream(str(error)) from None
            rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            self.taken += len(chunk) - len(rest)
            self.given += len(plain)
            yield plain
            chunk = rest

    def finish(self) -> None:
        """The last member must be whole."""
        if self._begun and not self._member.eof:
            raise CorruptStream("the file ends in the middle")


class Zstd:
    """Zstandard, of one or more frames."""

    def __init__(self) -> None:
        self.taken = self.given = 0
        self._decoder = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        self._frame = self._decoder.decompressobj()
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Plain bytes; a small piece of input at a time bounds what comes out."""
        for start in range(0, len(chunk), _PIECE):
            piece = chunk[start : start + _PIECE]
            while piece:
                self._begun = True
                try:
                    plain = self._frame.decompress(piece)
                except zstandard.ZstdError as error:
                    raise CorruptStream(str(error)) from None
                self.taken += len(piece) - len(self._frame.unused_data)
                self.given += len(plain)
                yield plain
                piece = b""
                if self._frame.eof:
                    piece = self._frame.unused_data
                    self._frame, self._begun = self._decoder.decompressobj(), False

    def finish(self) -> None:
        """The last frame must be whole."""
        if self._begun:
            raise CorruptStream("the file ends in the middle")


def decompressor(name: str) -> Decompressor:
    """By the file's ending: .gz, .zst or plain."""
    if name.endswith(".gz"):
        return Gzip()
    return Zstd() if name.endswith(".zst") else Plain()
