"""The encoding of the text of a file, and its change to UTF-8."""

import codecs
import re
from typing import Protocol

from shardline_common.job.spec import FilesSource
from shardline_producer.sources.files.file_format import UTF_8

# What no text has: the control characters but for white space and escape.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


class Decoder(Protocol):
    """Changes a text, which is passed in chunks, to UTF-8."""

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


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a text: no compressed file begins like one."""
    return _CONTROL.search(head) is None and decodes(head)


def decodes(head: bytes) -> bool:
    """Whether bytes are UTF-8, as far as their last character is whole."""
    try:
        codecs.getincrementaldecoder(UTF_8)().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def detect_encoding(path: str, head: bytes, source: FilesSource) -> str:  # noqa: ARG001
    """The encoding of a text that begins with `head`, as the name of a Python codec."""
    return UTF_8


def decoder(encoding: str) -> Decoder:  # noqa: ARG001
    """The decoder of an encoding."""
    return Utf8Decoder()
