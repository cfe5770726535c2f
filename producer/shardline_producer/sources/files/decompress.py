"""Decompression of a stream in pieces of bounded size: no input can fill the memory."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

import zstandard

from shardline_producer.sources.files.file_format import Compression, by_name

_INPUT_BYTES = 4096
_OUTPUT_BYTES = 1 << 20
_TRUNCATED = "the file ends in the middle"
# A skippable frame of zstd begins with a byte from 50 to 5f, and then these.
_SKIPPABLE = b"\x2a\x4d\x18"
_MAGIC_BYTES = 4


class CorruptStream(Exception):
    """The stream is not valid gzip or zstd, or it is truncated."""


class EmptyStream(Exception):
    """The stream has no gzip member and no zstd frame with data. Compressing an empty text makes one."""


class Decompressor(Protocol):
    """Decompresses one stream, which is passed in chunks.

    `bytes_in` and `bytes_out` count the bytes decompressed so far, before and after decompression.
    """

    bytes_in: int
    bytes_out: int

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The decompressed bytes of the chunk, in pieces. Raises CorruptStream."""

    def finish(self) -> None:
        """Check that the stream ended with the last chunk.

        Raises:
            CorruptStream: it is truncated.
            EmptyStream: nothing was compressed, not even an empty text.
        """


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
        self._begun = False
        self._zeros = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Pieces of at most 1 MiB."""
        if not self._begun and not chunk.strip(b"\0"):
            self._zeros += len(chunk)
            return
        if not self._begun and self._zeros:
            raise CorruptStream(f"it begins with {self._zeros} zero bytes")
        self._begun = True
        while chunk:
            if self._member.eof:
                self._member, self._inside_member = zlib.decompressobj(wbits=31), False
            if not self._inside_member and self.bytes_in:
                # Zero bytes may pad the end of a member.
                chunk = chunk.lstrip(b"\0")
                if not chunk:
                    return
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
        """Check that there is a member, and that the last one is whole."""
        if not self._begun:
            raise EmptyStream(f"holds {self._zeros} zero bytes" if self._zeros else "has 0 bytes")
        if self._inside_member and not self._member.eof:
            raise CorruptStream(_TRUNCATED)


class ZstdDecompressor:
    """Implements `Decompressor` for Zstandard, of one or more frames."""

    def __init__(self) -> None:
        self.bytes_in = self.bytes_out = 0
        self._decoder = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        self._frame = self._decoder.decompressobj()
        self._inside_frame = False
        self._magic = b""
        self._has_data = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The output of 4 KiB of input at a time: the library cannot limit the output itself."""
        for start in range(0, len(chunk), _INPUT_BYTES):
            piece = chunk[start : start + _INPUT_BYTES]
            while piece:
                self._inside_frame = True
                self._magic += piece[: _MAGIC_BYTES - len(self._magic)]
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
                    self._has_data |= self._magic[1:] != _SKIPPABLE
                    self._magic = b""

    def finish(self) -> None:
        """Check that there is a frame with data, and that the last one is whole."""
        if self._inside_frame:
            raise CorruptStream(_TRUNCATED)
        if not self._has_data:
            raise EmptyStream("holds no frame with data" if self.bytes_in else "has 0 bytes")


def decompressor(compression: Compression) -> Decompressor:
    """The decompressor of a compression."""
    return _DECOMPRESSORS[compression]()


def detect_compression(path: str, head: bytes) -> Compression:
    """The compression of a file that begins with `head`: by its first bytes, whatever its name."""
    for magic, compression in _MAGIC:
        if head.startswith(magic):
            return compression
    return by_name(path).compression


def start_of_text(compression: Compression, head: bytes) -> bytes:
    """What the first bytes of a file hold, as far as they are sound: the read itself reports the rest."""
    pieces = list[bytes]()
    with suppress(CorruptStream):
        pieces.extend(decompressor(compression).feed(head))
    return b"".join(pieces)


_DECOMPRESSORS: dict[Compression, Callable[[], Decompressor]] = {
    "none": PlainDecompressor,
    "gzip": GzipDecompressor,
    "zstd": ZstdDecompressor,
}
_MAGIC: tuple[tuple[bytes, Compression], ...] = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
