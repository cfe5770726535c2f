"""The parts of a compressed stream, each decompressed in pieces of bounded size by its library.

They are called members here, as in gzip: zstd calls them frames, xz and bzip2 streams.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import zstandard

from shardline_producer.sources.files.decoder_memory import LARGEST, SMALL
from shardline_producer.sources.files.file_format import Compression

# The library of zstd cannot limit its output. Four bytes of input become 128 KiB at most.
_ZSTD_INPUT = 2048
_INPUT = 1 << 14
_OUTPUT = 1 << 20
_ZSTD_HEADER = 5
# A skippable frame of zstd begins with a byte from 50 to 5f, and then these.
_SKIPPABLE = b"\x2a\x4d\x18"
_XZ_HEADER = 12
_LZMA2 = 0x21
# What the decoder of xz needs beside its dictionary.
_XZ_OVERHEAD = 1 << 22

Reserve = Callable[[int], None]
"""Reserves the memory of a window. Raises WindowTooLarge and WindowsInUse."""


class CorruptStream(Exception):
    """The stream is damaged or truncated. `hint`: what to do when the file itself is sound."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Member(Protocol):
    """Decompresses one member.

    `has_data` is False for a member that can hold no data at all. `consumed` counts its bytes so far.
    """

    has_data: bool
    consumed: int

    @property
    def rest(self) -> bytes | None:
        """What came behind the end of the member; None: it has not ended."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decompressed bytes of the next part of the stream, in pieces. Raises CorruptStream."""


class GzipMember:
    """Implements `Member` for gzip."""

    has_data = True

    def __init__(self, reserve: Reserve) -> None:  # noqa: ARG002 - its window is small
        self._decoder = zlib.decompressobj(wbits=31)
        self.consumed = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Pieces of at most 1 MiB."""
        while data and not self._decoder.eof:
            try:
                plain = self._decoder.decompress(data, _OUTPUT)
            except zlib.error as error:
                raise CorruptStream(str(error)) from None
            rest = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
            self.consumed += len(data) - len(rest)
            yield plain
            data = rest

    @property
    def rest(self) -> bytes | None:
        """What came behind the trailer."""
        return self._decoder.unused_data if self._decoder.eof else None


def _feed(
    member: "Bzip2Member | XzMember", decoder: "bz2.BZ2Decompressor | lzma.LZMADecompressor", data: bytes
) -> Iterator[bytes]:
    for start in range(0, len(data), _INPUT):
        piece = data[start : start + _INPUT]
        plain = decoder.decompress(piece, _OUTPUT)
        member.consumed += len(piece)
        while not decoder.eof and not decoder.needs_input:
            yield plain
            plain = decoder.decompress(b"", _OUTPUT)
        if decoder.eof:
            member.consumed -= len(decoder.unused_data)
            member.rest = decoder.unused_data + data[start + _INPUT :]
        yield plain
        if decoder.eof:
            return


class Bzip2Member:
    """Implements `Member` for bzip2."""

    has_data = True

    def __init__(self, reserve: Reserve) -> None:  # noqa: ARG002 - it needs 4 MB
        self._decoder = bz2.BZ2Decompressor()
        self.consumed = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Pieces of at most 1 MiB."""
        try:
            yield from _feed(self, self._decoder, data)
        except (OSError, ValueError) as error:
            raise CorruptStream(str(error)) from None

    rest: bytes | None = None


class _WindowedMember:
    """A member whose header says how much memory it needs. The header is held until it is whole."""

    def __init__(self, reserve: Reserve) -> None:
        self._reserve = reserve
        self._header: bytes | None = b""
        self.consumed = 0

    def _with_header(self, data: bytes) -> bytes:
        """The data from the member's start on, once the header is whole; before that, nothing."""
        if self._header is None:
            return data
        self._header += data
        size = self._header_bytes(self._header)
        if len(self._header) < size:
            return b""
        data, self._header = self._header, None
        # Not what comes behind it: how much that is depends on the chunks.
        self._open(data[:size])
        return data

    def _header_bytes(self, start: bytes) -> int:
        raise NotImplementedError

    def _open(self, header: bytes) -> None:
        raise NotImplementedError


class XzMember(_WindowedMember):
    """Implements `Member` for xz."""

    has_data = True
    _decoder: lzma.LZMADecompressor | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Pieces of at most 1 MiB."""
        data = self._with_header(data)
        if self._decoder is None:
            return
        try:
            yield from _feed(self, self._decoder, data)
        except lzma.LZMAError as error:
            raise CorruptStream(str(error)) from None

    rest: bytes | None = None

    def _header_bytes(self, start: bytes) -> int:
        # The first byte behind the header of the stream is the size of the header of the first block.
        return _XZ_HEADER + (start[_XZ_HEADER] + 1) * 4 if len(start) > _XZ_HEADER else _XZ_HEADER + 1

    def _open(self, header: bytes) -> None:
        dictionary = _xz_dictionary(header[_XZ_HEADER:])
        self._reserve(dictionary)
        limit = max(SMALL, dictionary) + _XZ_OVERHEAD
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limit)


class ZstdMember(_WindowedMember):
    """Implements `Member` for Zstandard."""

    has_data = True
    _frame: "zstandard.ZstdDecompressionObj | None" = None
    rest: bytes | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The output of 2 KiB of input at a time."""
        try:
            data = self._with_header(data)
        except zstandard.ZstdError as error:
            raise CorruptStream(str(error)) from None
        frame = self._frame
        if frame is None:
            return
        for start in range(0, len(data), _ZSTD_INPUT):
            piece = data[start : start + _ZSTD_INPUT]
            try:
                plain = frame.decompress(piece)
            except zstandard.ZstdError as error:
                raise CorruptStream(str(error)) from None
            unused = frame.unused_data if frame.eof else b""
            self.consumed += len(piece) - len(unused)
            yield plain
            if frame.eof:
                self.rest = unused + data[start + _ZSTD_INPUT :]
                return

    def _header_bytes(self, start: bytes) -> int:
        if start[1:4] == _SKIPPABLE:
            return len(_SKIPPABLE) + 1
        return zstandard.frame_header_size(start) if len(start) >= _ZSTD_HEADER else _ZSTD_HEADER

    def _open(self, header: bytes) -> None:
        self.has_data = header[1:4] != _SKIPPABLE
        if self.has_data:
            found = zstandard.get_frame_parameters(header)
            if found.dict_id:
                raise CorruptStream(
                    f"it was compressed with the dictionary {found.dict_id}, which is not in it",
                    "decompress it with `zstd -d -D <dictionary>`, and name the file that this writes",
                )
            # The library allocates no more than the data, where it knows their size.
            self._reserve(min(found.window_size, found.content_size))
        self._frame = _ZSTD.decompressobj()


def _xz_dictionary(header: bytes) -> int:
    """The size of the dictionary of an xz block from the header of the block; 0 where there is none."""
    size, flags, at = header[0], header[1:2], 2
    if not size or not flags:
        return 0
    # A file with a wrong header is damaged, as the library finds.
    with suppress(IndexError):
        for present in (0x40, 0x80):
            if flags[0] & present:
                _, at = _xz_number(header, at)
        for _ in range((flags[0] & 3) + 1):
            kind, at = _xz_number(header, at)
            length, at = _xz_number(header, at)
            if kind == _LZMA2:
                bits = header[at] & 0x3F
                return (2 | bits & 1) << (bits // 2 + 11)
            at += length
    return 0


def _xz_number(header: bytes, at: int) -> tuple[int, int]:
    """A number of xz, seven bits a byte with the lowest first, and where it ends."""
    value = shift = 0
    while header[at] & 0x80:
        value |= (header[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | header[at] << shift, at + 1


_ZSTD = zstandard.ZstdDecompressor(max_window_size=LARGEST)


@dataclass(frozen=True, slots=True)
class MemberFormat:
    """How the members of a compression begin, and how they are opened.

    Where a text of `inside` stands in what comes behind the last member, there was another one.
    """

    magics: Sequence[bytes]
    open: Callable[[Reserve], Member]
    inside: Sequence[bytes]

    def begins(self, start: bytes) -> bool | None:
        """Whether a member begins with these bytes; None: the next ones will show it."""
        if any(start.startswith(magic) for magic in self.magics):
            return True
        return None if any(magic.startswith(start) for magic in self.magics) else False


_BZIP2 = [b"BZh%d" % level + block for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90")]
_XZ = [b"\xfd7zXZ\0"]
_ZSTD_MAGICS = [b"\x28\xb5\x2f\xfd", *(bytes([first]) + _SKIPPABLE for first in range(0x50, 0x60))]
MEMBERS: Mapping[Compression, MemberFormat] = {
    "gzip": MemberFormat([b"\x1f\x8b"], GzipMember, [b"\x1f\x8b\x08"]),
    "zstd": MemberFormat(_ZSTD_MAGICS, ZstdMember, _ZSTD_MAGICS),
    "xz": MemberFormat(_XZ, XzMember, _XZ),
    "bzip2": MemberFormat(_BZIP2, Bzip2Member, _BZIP2),
}
