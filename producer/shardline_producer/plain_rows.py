"""The hot path of rows of a database: from their values to a message, for rows without odd cases.

A row is rendered here as the rules for all documents (`rows`) render it, byte for byte.
What has another column, type or split, these rules decide.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from shardline_common.job.blank import is_blank
from shardline_common.job.clara_score import count_present
from shardline_common.job.columns import EXTRA, Columns
from shardline_common.job.hashing import in_validation, key_hashes
from shardline_common.job.messages import Position, encode_facts
from shardline_common.job.plan import RULES
from shardline_common.job.spec import JobSpec
from shardline_producer.rows import behind_metadata, count_words, escaped, text_json
from shardline_producer.sources.source import RenderedItem, RenderRow

_LARGEST = 1.7976931348623157e308


def row_renderer(spec: JobSpec, columns: Columns, rules: int, fields: Mapping[str, str]) -> RenderRow | None:
    """What renders rows of these fields, each with its type; None where their columns are others.

    None also for a split by a field, because a null is another group than no field, and for a job whose order
    decides the partitions.
    """
    plain = not columns.renamed and EXTRA not in columns.types and rules == RULES and not spec.assembled
    if not plain or list(fields.items()) != list(columns.types.items()) or spec.output.group_by:
        return None
    names = tuple(fields)
    floats = tuple(name for name, kind in fields.items() if kind == "float")
    dumps, decimals, behind, new = orjson.dumps, spec.relevance_decimals, behind_metadata(spec), tuple.__new__
    train, validation, share = spec.partitions, spec.validation_partitions, spec.output.validation_fraction

    # Long, because a call of a function takes as long as to hash an id.
    def render(
        position: Position, size: int, identity: str, text: str, values: Sequence[Any], relevance: float
    ) -> RenderedItem | None:
        # 1. The columns.
        row: dict[str, Any] = dict(zip(names, values, strict=True))
        for name in floats:
            if (value := row[name]) is not None:
                if not -_LARGEST <= value <= _LARGEST:
                    return None
                # JSON of a document has no -0.0.
                row[name] = value + 0.0
        present, row[EXTRA] = count_present(row), None
        # 2. Render. A text that begins with a visible character is not blank, and most do.
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
        # 3. The partition and the part of the proof. A NamedTuple's own constructor takes twice as long.
        key = identity.encode()
        placing, key_hash = key_hashes(key)
        number = placing % train
        if validation and in_validation(key, share):
            number = train + placing % validation
        return new(RenderedItem, (position, size, key, number, key_hash, facts, head, b"".join(parts)))

    return render
