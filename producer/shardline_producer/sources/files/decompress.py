"""Decompression of a stream in pieces of bounded size: no input can fill the memory."""

import zlib
from collections.abc import Iterator
from typing import Protocol

import zstandard

_INPUT_BYTES = 4096
_OUTPUT_BYTES = 1 << 20
_TRUNCATED = "the file ends in the middle"


class CorruptStream(Exception):
    """The stream is not valid gzip or zstd, or it is truncated."""


class Decompressor(Protocol):
    """Decompresses one stream, which is passed in chunks.

    `bytes_in` and `bytes_out` count the bytes decompressed so far, before and after decompression.
    """

    bytes_in: int
    bytes_out: int

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The decompressed bytes of the chunk, in pieces. Raises CorruptStream."""

    def finish(self) -> None:
        """Check that the stream ended with the last chunk. Raises CorruptStream when it is truncated."""


class PlainDecompressor:
    """Implements `Decompressor` for a stream without compression."""

    def __init__(self) -> None:
        self.bytes_in = self.bytes_out = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The chunk itself."""
        self.bytes_in = self.bytes_out = self.bytes_in + len(chunk)
        yield chunk

    def finish(self) -> None:
        """Accept every end: a plain stream may end anywhere."""


class GzipDecompressor:
    """Implements `Decompressor` for gzip, of one or more members."""

    def __init__(self) -> None:
        self.bytes_in = self.bytes_out = 0
        self._member = zlib.decompressobj(wbits=31)
        self._inside_member = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Pieces of at most 1 MiB."""
        while chunk:
            if self._member.eof:
                # Zero bytes may pad the end of the last member.
                chunk = chunk.lstrip(b"\0")
                self._member, self._inside_member = zlib.decompressobj(wbits=31), False
                continue
            self._inside_member = True
            try:
                plain = self._member.decompress(chunk, _OUTPUT_BYTES)
            except zlib.error as error:
                raise CorruptStream(str(error)) from None
            rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            self.bytes_in += len(chunk) - len(rest)
            self.bytes_out += len(plain)
            yield plain
            chunk = rest

    def finish(self) -> None:
        """Check that the last member is whole."""
        if self._inside_member and not self._member.eof:
            raise CorruptStream(_TRUNCATED)


class ZstdDecompressor:
    """Implements `Decompressor` for Zstandard, of one or more frames."""

    def __init__(self) -> None:
        self.bytes_in = self.bytes_out = 0
        self._decoder = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        self._frame = self._decoder.decompressobj()
        self._inside_frame = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The output of 4 KiB of input at a time: the library cannot limit the output itself."""
        for start in range(0, len(chunk), _INPUT_BYTES):
            piece = chunk[start : start + _INPUT_BYTES]
            while piece:
                self._inside_frame = True
                try:
                    plain = self._frame.decompress(piece)
                except zstandard.ZstdError as error:
                    raise CorruptStream(str(error)) from None
                self.bytes_in += len(piece) - len(self._frame.unused_data)
                self.bytes_out += len(plain)
                yield plain
                piece = b""
                if self._frame.eof:
                    piece = self._frame.unused_data
                    self._frame, self._inside_frame = self._decoder.decompressobj(), False

    def finish(self) -> None:
        """Check that the last frame is whole."""
        if self._inside_frame:
            raise CorruptStream(_TRUNCATED)


def decompressor(name: str) -> Decompressor:
    """The decompressor for a file name: .gz, .zst, else plain."""
    if name.endswith(".gz"):
        return GzipDecompressor()
    return ZstdDecompressor() if name.endswith(".zst") else PlainDecompressor()
