"""The index of a staged segment: an entry for each of its records, in the spool until it is committed."""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from shardline_common.assembly.content_hash import content_hash
from shardline_common.assembly.minhash import Signer
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.hashing import document_hash, group_hash, order_key, sample_key
from shardline_common.job.messages import (
    DEAD,
    DOCUMENT_KINDS,
    MALFORMED,
    decode_dead_letter,
    decode_document,
    decode_group,
    decode_kind_and_sequence,
    is_message,
    position_number,
)
from shardline_common.job.spec import JobSpec, Near
from shardline_common.ports.broker import Record
from shardline_consumer.curation.verdicts import Bounds, Curated
from shardline_consumer.filters.clara import Judge, Rejection
from shardline_consumer.spool.file import SpoolFile

if TYPE_CHECKING:
    from shardline_consumer.curation.curator import Curator

ROW, REJECTED, DEAD_LETTER = 0, 1, 2
"""The status of a record."""
NO_VALUE = float("nan")
"""The value of an entry that has none: a filter never gives it."""
# position, order, group, sample, id hash, row hash, value, words, score, size of the row, size of the id,
# reason, status, content
ENTRY = struct.Struct("<qQQQQQdIIIIIB16s")
# Entries, bytes of their ids, bytes of their signatures.
CHUNK = struct.Struct("<III")
_SCORE_UNITS = 10_000
_ROW_HASH_BYTES = 8
_NO_CONTENT = bytes(16)


@dataclass(frozen=True, slots=True)
class IndexRules:
    """What the entries of a job hold.

    `order_seed` and `sample_seed`: the seeds of the order and of the sample; None: the job has none.
    `bounds`: those of the filters that measure something, by reason. `content` is the hash of a
    text, 16 bytes; None: the job compares no texts. `near`: how near duplicates are found; None: they are
    not.
    """

    order_seed: int | None
    sample_seed: int | None
    bounds: Mapping[str, Bounds]
    content: Callable[[str], bytes] | None
    near: Near | None

    @classmethod
    def of(cls, spec: JobSpec, curator: "Curator | None" = None) -> "IndexRules":
        """The rules of an assembled job. `curator` judges its documents; None: it has no filters."""
        dedup, near = spec.dedup, spec.near
        compares = near is not None or (dedup is not None and (dedup.exact or bool(dedup.against)))
        return cls(
            spec.order_seed,
            spec.sample.seed if spec.sample else None,
            {Rejection.BELOW_MIN_SCORE.value: Bounds(spec.quality.min_score, None)}
            if curator is None
            else curator.bounds,
            partial(content_hash, ignore_case=dedup is not None and dedup.ignore_case) if compares else None,
            near,
        )

    @property
    def keeps_signatures(self) -> bool:
        """Whether the signatures are stored beside their bands: pairs are compared by them."""
        return self.near is not None and self.near.verify is not None

    @property
    def signature_fields(self) -> list[Any]:
        """The fields of a signed row, for NumPy: position, band hashes, and the signature if it is kept."""
        near = self.near
        if near is None:
            return [("position", "<i8")]
        fields: list[Any] = [("position", "<i8"), ("hashes", "<u8", (near.bands,))]
        if self.keeps_signatures:
            fields.append(("signature", "<u4", (near.bands * near.rows,)))
        return fields


class SegmentIndex:
    """Writes the entries of one segment. `number` is that of the slice whose messages the segment has.

    An entry has 93 bytes and its id, with signatures 8 bytes for each band and 4 for each stored value more.
    They are on disk, because a worker may have hundreds of open segments. `add` writes: call it on a thread.
    """

    def __init__(self, rules: IndexRules, judge: "Judge | Curator", number: int, spool: Path) -> None:
        self.rules = rules
        self.file: SpoolFile | None = None
        self.reasons: list[str] = []
        self._judge = judge if isinstance(judge, Judge) else None
        self._slice = number
        self._spool = spool
        near = rules.near
        self._signer = None if near is None else Signer(near.bands, near.rows, near.seed)
        self._codes: dict[str, int] = {}
        self._entries: list[bytes] = []
        self._ids: list[bytes] = []
        self._signatures: list[bytes] = []

    def add(self, records: Sequence[Record], first: int, after: int, curated: Iterable[Curated] = ()) -> None:
        """Add the entries of sequences [first, after), whose messages are among `records`.

        `curated` are the documents among them as they were judged, in a job with filters.

        Raises:
            JobFailed: a message of them is missing (`internal`).
            SpoolError: the spool cannot be written.
        """
        expected, judged = first, iter(curated)
        for record in records:
            key, value = record.key, record.value
            if key is None or not is_message(value):
                continue
            kind, sequence = decode_kind_and_sequence(value)
            # Others were taken before, or are no messages: `OpenSegment.take` has found no gap.
            if sequence != expected or expected == after:
                continue
            try:
                if kind == DEAD:
                    self._add_dead_letter(key, value)
                elif kind in DOCUMENT_KINDS:
                    self._add_document(key, value, judged)
                else:
                    continue
            except MALFORMED:
                continue
            expected += 1
        if expected != after:
            raise JobFailed(
                FailureCode.INTERNAL,
                f"the index of a segment lacks the records from sequence {expected} to {after - 1}",
                hint="report this; a retry reads the segment again",
            )
        self._write()

    def discard(self) -> None:
        """Close and remove the spool file. May be repeated."""
        if self.file is not None:
            self.file.discard()

    def _add_document(self, key: bytes, value: bytes, judged: Iterator[Curated]) -> None:
        chars, words, present, flags, relevance, start, head, tail = decode_document(value)
        position, group = self._position(value[start:head]), decode_group(value)
        if group is None:
            group = group_hash(key)
        if self._judge is None:
            self._add_curated(key, position, group, next(judged))
            return
        verdict = self._judge(chars, present, flags, relevance)
        if verdict.reason is None:
            row = value[head:tail] + verdict.text + value[tail:]
            self._add(key, position, group, self._row(position, row, words, verdict.score))
        elif verdict.reason is Rejection.BELOW_MIN_SCORE:
            measured = verdict.score / _SCORE_UNITS
            self._add(key, position, group, _Landed(REJECTED, verdict.reason.value, measured))
        else:
            self._add(key, position, group, _Landed(REJECTED, verdict.reason.value))

    def _add_curated(self, key: bytes, position: int, group: int, found: Curated) -> None:
        if found.reason is None:
            row = b"".join((found.head, found.score_text, found.tail))
            self._add(key, position, group, self._row(position, row, found.facts.words, found.score))
        else:
            self._add(key, position, group, _Landed(REJECTED, found.reason, found.value))

    def _row(self, position: int, row: bytes, words: int, score: int) -> "_Landed":
        content, digest = self._content(position, row), sha256(row).digest()
        row_hash = int.from_bytes(digest[:_ROW_HASH_BYTES], "big")
        return _Landed(ROW, size=len(row), content=content, words=words, score=score, row_hash=row_hash)

    def _add_dead_letter(self, key: bytes, value: bytes) -> None:
        position, dead_letter = decode_dead_letter(value)
        self._add(key, self._position(position), group_hash(key), _Landed(DEAD_LETTER, dead_letter.reason))

    def _position(self, position: bytes) -> int:
        return position_number(self._slice, orjson.loads(position)[-1])

    def _content(self, position: int, row: bytes) -> bytes:
        """The hash of the text of a row. Its signature is added too."""
        rules = self.rules
        if rules.content is None:
            return _NO_CONTENT
        # Parsing the whole row is fast: to find the end of the text alone takes a dozen times as long.
        text = orjson.loads(row)["text"]
        if self._signer is not None and (signature := self._signer.sign(text)) is not None:
            self._signatures += (position.to_bytes(8, "little"), self._signer.band_hashes(signature))
            if rules.keeps_signatures:
                self._signatures.append(signature)
        return rules.content(text)

    def _add(self, key: bytes, position: int, group: int, landed: "_Landed") -> None:
        rules, reason = self.rules, landed.reason
        code = self._codes.setdefault(reason, len(self._codes))
        if code == len(self.reasons):
            self.reasons.append(reason)
        order = 0 if rules.order_seed is None else order_key(rules.order_seed, key)
        sample = 0 if rules.sample_seed is None else sample_key(rules.sample_seed, key)
        name = key if key.isascii() else key.decode("utf-8", "backslashreplace").encode()
        self._entries.append(
            ENTRY.pack(
                position,
                order,
                group,
                sample,
                document_hash(key),
                landed.row_hash,
                landed.value,
                landed.words,
                landed.score,
                landed.size,
                len(name),
                code,
                landed.status,
                landed.content,
            )
        )
        self._ids.append(name)

    def _write(self) -> None:
        entries, ids, signatures = self._entries, self._ids, self._signatures
        if not entries:
            return
        self.file = self.file or SpoolFile(self._spool)
        sizes = (len(entries), sum(map(len, ids)), sum(map(len, signatures)))
        self.file.write([CHUNK.pack(*sizes), *entries, *ids, *signatures])
        for part in (entries, ids, signatures):
            part.clear()


class _Landed(NamedTuple):
    """How a record landed. `value` is what a filter measured, `size` that of the row with its line end.

    `words` and `score` are those of a row, the score in units of 0.0001; `row_hash` are the first 8 bytes of
    its sha256.
    """

    status: int
    reason: str = ""
    value: float = NO_VALUE
    size: int = 0
    content: bytes = _NO_CONTENT
    words: int = 0
    score: int = 0
    row_hash: int = 0
