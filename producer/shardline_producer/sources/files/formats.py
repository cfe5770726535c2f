"""The format of a file, found in its first bytes when the job is planned."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from shardline_common.job.spec import FilesSource
from shardline_producer.sources.files.decompress import detect_compression, start_of_text
from shardline_producer.sources.files.detected_encoding import detect_encoding
from shardline_producer.sources.files.encodings import Decoder, decoder
from shardline_producer.sources.files.file_format import FileFormat
from shardline_producer.sources.files.foreign_formats import refuse_foreign
from shardline_producer.sources.files.record_forms import detect_records
from shardline_producer.sources.files.table_formats import detect_table, refuse_compressed_table

_HEAD = 1 << 18


async def read_head(chunks: AsyncGenerator[bytes, None]) -> bytes:
    """The first 256 KiB of a stream, or all: the same bytes however it comes. The stream is closed."""
    head = b""
    async with aclosing(chunks):
        async for chunk in chunks:
            head += chunk
            if len(head) >= _HEAD:
                break
    return head[:_HEAD]


def detect(path: str, head: bytes, source: FilesSource) -> FileFormat:
    """The format of a file that begins with `head`, or is `head`.

    Raises:
        JobFailed: it cannot be read; the hint says what to do (`source_invalid`).
    """
    if (table := detect_table(path, head, source)) is not None:
        return FileFormat(records=table)
    compression = detect_compression(path, head)
    plain = start_of_text(compression, head)
    refuse_compressed_table(path, compression, plain)
    refuse_foreign(path, compression, plain, source)
    if not plain:
        # What only the name calls compressed may be anything.
        refuse_foreign(path, "none", head, source)
    encoding = detect_encoding(path, plain, source)
    text = _start(decoder(encoding), plain)
    records, options = detect_records(path, text, source)
    return FileFormat(compression, encoding, records, options)


def _start(decoding: Decoder, plain: bytes) -> bytes:
    """The first bytes of a text in UTF-8. At their end a character may be cut."""
    return (decoding.feed(plain) + decoding.finish())[:_HEAD]
