"""The last part of the hot paths of lines and of database rows: from a row's columns to its message."""

from collections.abc import Callable
from typing import Any

import orjson

from shardline_common.job.blank import is_blank
from shardline_common.job.hashing import in_validation, key_hashes
from shardline_common.job.messages import Position, encode_facts
from shardline_common.job.spec import JobSpec
from shardline_producer.rows import behind_metadata, count_words, escaped, text_json
from shardline_producer.sources.source import RenderedItem

PlainFinish = Callable[[Position, int, str, str, dict[str, Any], int, float], RenderedItem]
"""Called with position, size, id, text, the columns in their order, the counted fields, and the relevance."""


def plain_finish(spec: JobSpec) -> PlainFinish:
    """What makes the message of a document with the columns of the job, in the split of its id."""
    dumps, decimals, behind, new = orjson.dumps, spec.relevance_decimals, behind_metadata(spec), tuple.__new__
    train, validation, share = spec.partitions, spec.validation_partitions, spec.output.validation_fraction

    # Long, because a call of a function takes as long as to hash an id.
    def finish(
        position: Position,
        size: int,
        identity: str,
        text: str,
        row: dict[str, Any],
        present: int,
        relevance: float,
    ) -> RenderedItem:
        # 1. Render. A text that begins with a visible character is not blank, and most do.
        metadata, shown_id, body = dumps(row), dumps(identity), text_json(text)
        if not metadata.isascii():
            metadata = escaped(metadata)
        blank = not "!" <= text[:1] <= "~" and is_blank(text)
        facts = encode_facts(len(text), count_words(text), present, blank, relevance)
        rounded = dumps(round(relevance, decimals) + 0.0) if relevance else b"0.0"
        parts = (
            b'{"text":', body, b',"metadata":', metadata, behind,
            b',"document_id":', shown_id, b',"relevance_score":', rounded, b"}\n",
        )  # fmt: skip
        head = 20 + len(body) + len(metadata) + len(behind)
        # 2. The partition and the part of the proof. A NamedTuple's own constructor takes twice as long.
        key = identity.encode()
        placing, key_hash = key_hashes(key)
        number = placing % train
        if validation and in_validation(key, share):
            number = train + placing % validation
        return new(RenderedItem, (position, size, key, number, key_hash, facts, head, b"".join(parts)))

    return finish
