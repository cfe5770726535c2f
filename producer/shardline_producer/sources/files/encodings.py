"""The encoding of the text of a file, and its change to UTF-8."""

import codecs
from typing import Protocol

from shardline_producer.sources.files.file_format import UTF_8

_BLOCK = 1 << 16
_INVALID = "shardline.invalid"
_BOM = "\ufeff"
_FIRST_ESCAPE = 0xDC00


class Decoder(Protocol):
    """Changes a text, which is passed in chunks, to UTF-8. It does not depend on the chunks.

    What is not valid in its encoding is not valid in UTF-8 either: the parser makes a dead letter of the
    record that holds it.
    """

    def feed(self, chunk: bytes) -> bytes:
        """The text of the chunk in UTF-8, as far as it is known without the next chunk."""

    def finish(self) -> bytes:
        """The rest of the text in UTF-8."""


class Utf8Decoder:
    """Implements `Decoder` for a text that is in UTF-8. The records find what is no UTF-8."""

    def feed(self, chunk: bytes) -> bytes:
        """The chunk itself."""
        return chunk

    def finish(self) -> bytes:
        """Nothing."""
        return b""


class CodecDecoder:
    """Implements `Decoder` for a codec of Python. A byte order mark at the start is left out."""

    def __init__(self, encoding: str) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)(_INVALID)
        self._held = bytearray()
        self._begun = False

    def feed(self, chunk: bytes) -> bytes:
        """The text of the blocks that are whole.

        Blocks, because a codec may find other faults in bytes that are cut elsewhere.
        """
        self._held += chunk
        end = len(self._held) - len(self._held) % _BLOCK
        # Each block alone: a cut of several must be the same as one of each.
        found = [self._decode(bytes(self._held[at : at + _BLOCK])) for at in range(0, end, _BLOCK)]
        del self._held[:end]
        return b"".join(found)

    def finish(self) -> bytes:
        """The text of the last block."""
        return self._decode(bytes(self._held), final=True)

    def _decode(self, block: bytes, *, final: bool = False) -> bytes:
        text = self._decoder.decode(block, final)
        if not self._begun and text:
            self._begun = True
            text = text.removeprefix(_BOM)
        return text.encode(UTF_8, "surrogatepass")


def decoder(encoding: str) -> Decoder:
    """The decoder of an encoding."""
    return Utf8Decoder() if encoding == UTF_8 else CodecDecoder(encoding)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Halves of surrogate pairs for what a codec cannot decode: UTF-8 has none, so they stay invalid."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(_FIRST_ESCAPE + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_INVALID, _escape)
