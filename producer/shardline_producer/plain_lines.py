"""The hot path of JSONL files: from a line to its message in one function, for documents without odd cases.

It returns None for what it cannot render: the rules for all documents (`documents.parse_document`, then
`rows`) decide then. Where it returns an item, it is the one that they make, byte for byte.
"""

import orjson

from shardline_common.job.clara_score import COUNTED_FIELDS
from shardline_common.job.columns import EXTRA, Columns, plain_types
from shardline_common.job.messages import Position
from shardline_common.job.plan import RULES
from shardline_common.job.spec import JobSpec
from shardline_producer.plain_finish import plain_finish
from shardline_producer.sources.documents import as_score
from shardline_producer.sources.source import RenderedItem, RenderLine

_MAX_ID_CHARS = 1024
_INT64 = 1 << 63


def line_renderer(  # noqa: C901 - of the function in it
    spec: JobSpec, columns: Columns, rules: int, identity: str, content: str
) -> RenderLine | None:
    """What renders the plain lines of a job whose id and text are the fields `identity` and `content`.

    None: no line is plain, because of the job's columns, its rules or its splits, or because its order
    decides the partitions.
    """
    kinds = plain_types(columns)
    counted = [name for name in COUNTED_FIELDS if name in columns.types]
    if kinds is None or rules != RULES or spec.validation_partitions or spec.assembled:
        return None
    if any(kinds[name] is not str for name in counted):
        # Of text alone, "is not empty" is what the score counts.
        return None
    kind_of, nulls = kinds.get, {**dict.fromkeys(kinds), EXTRA: None}
    loads, finish = orjson.loads, plain_finish(spec)

    # One function up to the row, because a call takes as long as to hash an id.
    def render(line: bytes, position: Position, size: int) -> RenderedItem | None:  # noqa: C901, PLR0911 - steps
        # 1. Parse. orjson is exact but for numbers beyond 64 bits, which step 2 sees.
        try:
            fields = loads(line)
        except orjson.JSONDecodeError:
            return None
        if type(fields) is not dict:
            return None
        given, text = fields.pop(identity, None), fields.pop(content, None)
        if type(given) is not str or type(text) is not str:
            return None
        if not (given.isascii() and given.isprintable() and 0 < len(given) <= _MAX_ID_CHARS):
            return None
        # 2. The columns: each field has one of the same name, and a value of exactly its type, or none.
        relevance = 0.0
        row = nulls.copy()
        for name, value in fields.items():
            kind = type(value)
            if kind is kind_of(name) and name != "score":
                if kind is not str and not -_INT64 <= value < _INT64:
                    return None
                row[name] = value
            elif name == "score" and kind is float and (score := as_score(value)) is not None:
                relevance = score
            elif value is not None or kind_of(name) is None:
                return None
        # 3. Render.
        present = 0
        for column in counted:
            if row[column]:
                present += 1
        return finish(position, size, given, text, row, present, relevance)

    return render
