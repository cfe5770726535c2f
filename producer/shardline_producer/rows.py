"""From a document to its row, finished but for the quality score."""

import orjson

from shardline_common.job.columns import Columns, conform
from shardline_common.job.messages import Facts
from shardline_producer.sources.source import Document

_COUNTED = ("title", "domain", "document_type")
# Some readers split lines at these as well; inside JSON strings they are escaped.
_LINE_BREAKS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))


def render(
    document: Document, columns: Columns, source: str, decimals: int = 4
) -> tuple[Facts, bytes, bytes]:
    """The facts of a document, and its row's bytes before and after the quality score.

    The keys stand in the order of Clara's training line; relevance is rounded to `decimals`.
    """
    text, metadata = document.text, document.metadata
    row = orjson.dumps({"text": text, "metadata": conform(metadata, columns), "source": source})
    relevance = round(document.relevance, decimals) + 0.0
    tail = orjson.dumps({"document_id": document.id, "relevance_score": relevance})
    head, tail = escaped(row[:-1] + b',"quality_score":'), escaped(b"," + tail[1:] + b"\n")
    present = sum(metadata.get(name) not in (None, "") for name in _COUNTED)
    words = len(text.split())
    # No words and only white space are the same thing.
    return Facts(len(text), words, present, words == 0, document.relevance), head, tail


def escaped(line: bytes) -> bytes:
    """JSON without the characters that some readers take for the end of a line."""
    for raw, escape in _LINE_BREAKS:
        if raw in line:
            line = line.replace(raw, escape)
    return line
