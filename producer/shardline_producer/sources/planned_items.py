"""From the contents of planned entries to items of a source. Pure."""

from collections.abc import Sequence

from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.source import (
    Document,
    InvalidDocument,
    Render,
    RenderedItem,
    SingleItem,
    SourceItem,
)


def is_vanished(item: SingleItem) -> bool:
    """Whether an item is the dead letter of a document that no longer exists."""
    if isinstance(item, RenderedItem) or isinstance(item.content, Document):
        return False
    return item.content.dead_letter.reason == DeadLetterReason.VANISHED


def rendered_items(
    contents: Sequence[RenderedItem | Document | InvalidDocument],
    scores: Sequence[float | None],
    first: int,
    render: Render,
) -> list[SingleItem]:
    """Items of contents, of which some are rendered; the ordinal of the first is `first`."""
    found: list[SingleItem] = []
    for ordinal, (content, score) in enumerate(zip(contents, scores, strict=False), first):
        if isinstance(content, RenderedItem):
            found.append(content)
            continue
        item = item_of(ordinal, content, score)
        if isinstance(item.content, Document):
            found.append(render(item.position, item.size, item.content))
        else:
            found.append(item)
    return found


def item_of(ordinal: int, content: Document | InvalidDocument, score: float | None) -> SourceItem:
    """The item of a content. `score`: the relevance of a ranked search; None for a scan."""
    if isinstance(content, InvalidDocument):
        return SourceItem((ordinal,), content, content.dead_letter.size)
    if score is not None:
        content.relevance = score
    if (size := content.text_bytes) is None:
        text = content.text
        size = len(text) if text.isascii() else len(text.encode())
    return SourceItem((ordinal,), content, size)
