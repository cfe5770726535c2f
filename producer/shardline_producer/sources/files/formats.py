"""The format of a file, found in its first bytes when the job is planned."""

from shardline_common.job.spec import FilesSource
from shardline_producer.sources.files.decompress import detect_compression, start_of_text
from shardline_producer.sources.files.detected_encoding import detect_encoding
from shardline_producer.sources.files.encodings import Decoder, decoder
from shardline_producer.sources.files.file_format import FileFormat
from shardline_producer.sources.files.foreign_formats import refuse_foreign
from shardline_producer.sources.files.record_forms import detect_records
from shardline_producer.sources.files.table_formats import detect_table, refuse_compressed_table

HEAD_BYTES = 1 << 18
"""How many bytes of a file are looked at when the job is planned."""


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
    return (decoding.feed(plain) + decoding.finish())[:HEAD_BYTES]
