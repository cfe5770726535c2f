"""The port `Source`: it freezes the input of a job, and streams its documents from any position."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from shardline_common.job.findings import Findings
from shardline_common.job.messages import DeadLetter, Position
from shardline_common.job.spec import JobSpec

Frozen = Sequence[Mapping[str, Any]]
"""The result of `Source.freeze`: JSON objects that identify the job's input (names, sizes, versions)."""

Part = Mapping[str, Any]
"""A range of a source, as JSON. Only the source that made it in `Source.cut` can read it."""


@dataclass(slots=True)
class Document:
    """A document of the source.

    `id` has 1 to 1,024 bytes of UTF-8 and no control characters; id and text hold no lone surrogates
    (`documents.validated` checks both). `metadata` maps names to JSON values, in the source's own order.
    `relevance` is the score of the search, else the document's own, else 0.0. `id_is_number`: the source has
    the id as a number, which may be the text of another document's id. `text_bytes`: the length of the text
    in UTF-8, if the source knows it.
    """

    id: str
    text: str
    metadata: dict[str, Any]
    relevance: float = 0.0
    id_is_number: bool = field(default=False, compare=False)
    text_bytes: int | None = field(default=None, compare=False, repr=False)


@dataclass(slots=True)
class InvalidDocument:
    """Input that cannot be a document.

    `key` takes the place of the id: the id if it is known, else where it was read, such as `laws.jsonl:12`.
    It decides the partition and is part of the hash sum, so it must be the same in every read. `fields` are
    those that were read, when only their names or types are wrong; else None.
    """

    key: str
    dead_letter: DeadLetter
    fields: dict[str, Any] | None = field(default=None, compare=False, repr=False)


@dataclass(slots=True)
class SourceItem:
    """An item that was read: its position, its content, and its size in the source, in bytes."""

    position: Position
    content: Document | InvalidDocument
    size: int


class RenderedItem(NamedTuple):
    """An item with a document as the producer sends it, without the sequence.

    `position` and `size`: as of SourceItem. `key`: the id in UTF-8. `partition` and `key_hash`: those of the
    document. `facts`: those of the message. `row`: the row without its quality score, which belongs behind
    the first `head` bytes.
    """

    position: Position
    size: int
    key: bytes
    partition: int
    key_hash: int
    facts: bytes
    head: int
    row: bytes


@dataclass(slots=True)
class BlockPart:
    """The documents of a block that have one partition, in their order.

    `position` is that of the last one, `key_hashes` the sum of their hashes, `size` the bytes of their rows.
    `body`: as of a message with all of them (`message_blocks`).
    """

    partition: int
    count: int
    position: Position
    key_hashes: int
    size: int
    body: Sequence[bytes]


@dataclass(slots=True)
class RenderedBlock:
    """Documents that follow each other, as the producer sends them, without the sequences.

    `position` is that of the last one, `size` the sum of their sizes in the source. To the ordinals of the
    parts and in their bodies, `base` must be added.
    """

    position: Position
    size: int
    count: int
    base: int
    parts: Sequence[BlockPart]


Render = Callable[[Position, int, Document], RenderedItem]
"""Renders a document, which has this position and size. It is called on threads, and can be pickled."""

RenderRow = Callable[[Position, int, str, str, Sequence[Any], float], RenderedItem | None]
"""Renders the document of a row of a database, as `Render` would render it.

The arguments are position, size, id, text, the values of the fields, and the relevance. The id is printable
ASCII, texts are Unicode, integers have 64 bits. None: the document must be rendered by the rules for all.
"""


@runtime_checkable
class RowRendering(Protocol):
    """What renders documents, and for rows of a database has a shorter way."""

    def of_rows(self, fields: Mapping[str, str]) -> RenderRow | None:
        """The shorter way, for rows of these fields with their column types; None where there is none."""


RenderLine = Callable[[bytes, Position, int], RenderedItem | None]
"""Renders the document of a line of JSON, which has this position and size, as `Render` would render it.

None: the document must be parsed and rendered by the rules for all documents.
"""


@runtime_checkable
class LineRendering(Protocol):
    """What renders documents, and for lines of JSON has a shorter way."""

    def of_lines(self, identity: str, text: str) -> RenderLine | None:
        """The shorter way, for documents whose id and text are these fields; None where there is none."""


@runtime_checkable
class BlockRendering(Protocol):
    """What renders documents, and can put them together. A source may do so before it hands them over."""

    def pack(self, items: Sequence[RenderedItem]) -> RenderedBlock | None:
        """The items as a block; None where each of them must be looked at."""


SingleItem = SourceItem | RenderedItem
"""An item of a source that may render its documents."""

AnyItem = SingleItem | RenderedBlock
"""An item of a source that may render its documents, or a block of them."""


@dataclass(frozen=True, slots=True)
class DeclaredSource:
    """What a source declares about its documents before it reads one.

    `columns` maps the names of the metadata to column types, in row order; None: the caller infers the
    columns from `Source.sample`. `notes` is JSON for manifest and status, such as the stores left out.
    `without_column`: how many fields the source has left out of the columns because there are too many.
    """

    columns: Mapping[str, str] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    without_column: int = 0


@dataclass(frozen=True, slots=True)
class Cuts:
    """The ranges of a source: at least one, in source order, which together are the whole source.

    `reason` says as a sentence why there are fewer than asked for; "" otherwise.
    """

    ranges: Sequence[Part]
    reason: str = ""


class Source(Protocol):
    """The documents that one job reads.

    `freeze` runs once at planning; its result is kept as JSON in the job's plan. Every other method receives
    that result, often on another object in another process. No method may rely on an earlier call of another
    method, except that `progress` may estimate from the last `read`, and `findings` speak of it. On an object
    one `freeze`, `sample` or `read` runs at a time; `progress` may be called between the batches of a `read`.
    Other processes may read the same job at the same time.

    Order. `read` yields each document that matches the query once, in an order that depends only on the
    frozen part and the query. Input that cannot be a document is yielded in its place as an InvalidDocument
    and never dropped. Documents that the filters exclude are not yielded and take no ordinal. Ids need not
    be unique.

    Positions. A position is a tuple of JSON scalars; all positions of a source have the same shape. They
    rise strictly, as Python compares tuples. The last part is the ordinal: 1, 2, 3 … without gaps over all
    items from the start of the source, whichever reads yielded them. `query.top_k` is the highest ordinal.
    The last ordinal is the source's own count, which the job's proof compares with rows, rejections and
    dead letters.

    Resuming. For every position that any read yielded, `read(frozen, position)` yields the items behind it,
    with the same positions and the same ids or keys, and if the store did not change, with the same
    contents. The dataset is exact only if this holds. A source whose store can change either detects the
    change and raises JobFailed (`source_changed`), or stores the list of ids before it yields a document of
    it, as PlannedSource does.

    Parts. With `part`, one of the ranges of `cut`, `read` yields the items of that range alone. The items of
    all ranges, one range after another, are those of the whole source: same ids or keys, same contents, same
    order. Positions are those of the whole source but for the ordinal, which counts from 1 in each range, and
    `after` is a position in the same range. `progress` is the share of the range. The counts in the findings
    of all ranges add up to those of the source. The caller puts the number of the range before the positions
    where there are several. None, or the only range, means the whole source.

    Batches. A batch holds at least one item, and at most about 1 MiB or 1,000 items; one item may be larger
    than that. The caller holds up to four batches in memory.

    Errors. SourceUnavailable: a later try may succeed. The caller opens a new source and continues from the
    last committed position, until SHARDLINE_SOURCE_PATIENCE_SECONDS are over. JobFailed: no retry can
    succeed; the attempt fails with its code. StoreUnavailable of the plan pages is passed on. Any other
    exception fails the attempt as `internal`, so errors of client libraries must be translated.

    Cancellation. The caller may close a generator (`aclose`) behind any batch, and may cancel the task that
    runs a method. The source closes its connections, files and tasks before the close or the cancel ends.
    Blocking work runs on threads by `run_in_thread`, because a cancel must await its end.

    Repetition. Every method may be called again. `freeze` may run in two producers at once: the plan that is
    stored first is used, and the other result is dropped.
    """

    async def freeze(self) -> list[dict[str, Any]]:
        """Identify the job's input as it is now, as JSON.

        Raises:
            JobFailed: an input that the job names does not exist or may not be read (`source_invalid`).
            SourceUnavailable: a later try may succeed.
        """

    def declared(self, frozen: Frozen) -> DeclaredSource:
        """What is known about the documents before they are read. Without I/O."""

    def sample(self, frozen: Frozen) -> AsyncGenerator[list[SourceItem], None]:
        """Batches of items in source order. The caller infers columns from them when none are declared.

        The caller stops after 10,000 items or 16 MiB. A source that cannot check its filters at planning also
        yields the items that they exclude, because the caller needs all fields for `check_query`. A source
        that has checked them yields the same items as `read`. Errors as in `read`.
        """

    def check_query(self, fields: Sequence[str]) -> None:
        """Check the query's filters against the fields that were declared or sampled. Without I/O.

        It is not called when the sample is empty.

        Raises:
            JobFailed: a filter names another field (`source_invalid`); the message names the known ones.
        """

    async def cut(self, frozen: Frozen, slices: int) -> Cuts:
        """Cut the source into up to `slices` ranges, 2 or more, of about the same size. It runs at planning.

        Raises:
            JobFailed, SourceUnavailable, StoreUnavailable: as `read`.
        """

    def read(
        self, frozen: Frozen, after: Position | None, part: Part | None = None
    ) -> AsyncGenerator[list[SourceItem], None]:
        """Batches of the items behind `after`; None: from the start.

        Raises:
            JobFailed: the source changed (`source_changed`) or is broken (`source_invalid`).
            SourceUnavailable: a later try may succeed.
        """

    def progress(self, frozen: Frozen, position: Position | None, part: Part | None = None) -> float:
        """The share of the source up to `position`, 0.0 to 1.0, or an estimate of it. Without I/O."""

    def findings(self, frozen: Frozen) -> Findings:
        """How the count of the last `read`, which has ended, is proven. Without I/O."""


@runtime_checkable
class RenderingSource(Protocol):
    """A source that can also render documents where it parses them, in the same call of a thread."""

    def read_rendered(
        self, frozen: Frozen, after: Position | None, part: Part | None, render: Render
    ) -> AsyncGenerator[Sequence[AnyItem], None]:
        """As `Source.read`, with each document as `render` returns it."""


class PlanPages(Protocol):
    """The pages of a job's plan: small JSON objects below the dataset, create-only.

    A name is relative and separated by `/`; names are sorted as text. All methods raise StoreUnavailable.
    """

    async def create_or_get(self, name: str, body: bytes) -> bytes:
        """Create the page and return `body`. If the page exists, change nothing and return its bytes."""

    async def get(self, name: str) -> bytes:
        """The bytes of an existing page."""

    async def names(self, folder: str) -> list[str]:
        """The sorted full names of the pages in a folder ("" is the root), without those of folders in it."""


OpenSource = Callable[[JobSpec, PlanPages], Source]
"""Makes the source of a job. It opens no connection: each method of the source opens and closes its own."""
