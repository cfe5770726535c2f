"""The hot path of rows of a database: from their values to a message, for rows without odd cases.

A row is rendered here as the rules for all documents (`rows`) render it, byte for byte.
What has another column, type or split, these rules decide.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from shardline_common.job.clara_score import count_present
from shardline_common.job.columns import EXTRA, Columns
from shardline_common.job.messages import Position
from shardline_common.job.plan import RULES
from shardline_common.job.spec import JobSpec
from shardline_producer.plain_finish import plain_finish
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
    finish = plain_finish(spec)

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
        # 2. Render.
        return finish(position, size, identity, text, row, present, relevance)

    return render
