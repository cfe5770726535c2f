"""Items of a source in tests: their ids, their documents, and the reasons of their dead letters."""

from collections.abc import Sequence

from shardline_producer.sources.source import Document, InvalidDocument, SourceItem


def item_ids(items: Sequence[SourceItem]) -> list[str]:
    """The id of each document, and the key of each invalid one."""
    return [item.content.id if isinstance(item.content, Document) else item.content.key for item in items]


def documents_of(items: Sequence[SourceItem]) -> list[Document]:
    """The documents, without the invalid ones."""
    return [item.content for item in items if isinstance(item.content, Document)]


def dead_letter_reasons(items: Sequence[SourceItem]) -> dict[str, str]:
    """Key → reason of the invalid documents."""
    return {
        item.content.key: item.content.dead_letter.reason
        for item in items
        if isinstance(item.content, InvalidDocument)
    }
