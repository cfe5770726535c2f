"""The rows of a table that a job reads, and how it reads them. Pure."""

from dataclasses import dataclass

from shardline_producer.sources.documents import FieldNames, parse_document
from shardline_producer.sources.source import Document
from shardline_producer.sources.themis.conditions import Conditions
from shardline_producer.sources.themis.queries import TableQuery


@dataclass(frozen=True, slots=True)
class RowSelection:
    """The rows that a job reads, and how it reads them.

    `lossless`: each row is read alone, as it was stored. `keyed`: the key column holds the rows' keys, which
    is necessary to read a row alone. `unchecked`: why the planning could not compare the index with the rows,
    or "". `reads_empty`: a row without a text is read alone in any case, because a response lacks a text that
    is an object or a list.
    """

    query: TableQuery
    conditions: Conditions
    lossless: bool
    keyed: bool
    unchecked: str = ""
    reads_empty: bool = False

    @property
    def names(self) -> FieldNames:
        """The fields of id and text. ThemisDB's own exporter calls the text `content`."""
        return FieldNames(self.query.key, ("content", "text"))

    def parse(self, text: str, key: str) -> Document | None:
        """The document of a row's JSON; None when it cannot be one."""
        found = parse_document(text.encode("utf-8", "surrogatepass"), key, self.names)
        return found if isinstance(found, Document) else None
