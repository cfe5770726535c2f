"""The content of a schedule: its job, its documents, and what must become of them, drawn from its seed."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

from shardline_common.errors import FailureCode
from shardline_common.job.messages import MAX_ORIGINAL_BYTES
from shardline_common.job.segment_limits import SegmentLimits
from shardline_common.job.spec import JobSpec
from shardline_producer.sources.documents import DeadLetterReason, dead_letter
from shardline_producer.sources.source import Document, InvalidDocument, SourceItem
from tests.make import job
from tests.simulation.assembled import Assembled
from tests.simulation.expected import Entry, Expected, expect, partition_of

UNLIMITED = 1_000_000
FATES = {
    "": 78,
    # A README.md of somebody else appears while the job runs, or right behind the outcome `completed`.
    "foreign card early": 5,
    "foreign card late": 8,
    # The store loses an object of a segment that it has acknowledged.
    "lost object": 5,
    # Somebody deletes the topic of the running attempt.
    "lost topic": 4,
}
"""The fates of a job, with their shares in percent."""
ASSEMBLED_FATES = FATES | {
    # Drop lists that this decision does not make are there, as if another attempt had left them.
    "foreign drop lists": 8,
    # A worker that was paused stores staged rows behind the end of the job.
    "late rows": 12,
}
"""Those of an assembled job."""
TOPIC_LOST_LATE = "topic lost late"
"""The fate of a job whose topic is deleted while its dataset is decided. A test names it."""
_MOODS = {
    # good, poor, blank, broken, bulky, large, huge, double, odd
    "mixed": (55, 15, 5, 8, 3, 4, 0, 6, 4),
    "rejected": (8, 70, 12, 4, 0, 0, 0, 3, 3),
    "broken": (25, 8, 2, 35, 20, 6, 0, 2, 2),
    "doubles": (30, 10, 3, 5, 2, 2, 0, 40, 8),
    "huge": (60, 15, 3, 5, 3, 5, 6, 2, 1),
    "hopeless": (0, 60, 15, 10, 5, 10, 0, 0, 0),
}
_KINDS = ("good", "poor", "blank", "broken", "bulky", "large", "huge", "double", "odd")
_TAILS = ("poor", "blank", "broken", "bulky")
_FULL = {"title": "t", "domain": "d", "document_type": "x"}
_ODD = (
    'Zeile\n\u2028und\u0085 noch\u2029 eine "mit" \\ und \t 😀',
    "ä" * 300,
    "\u00a0 \u3000",
    "x\x00\x1f y",
)

OVERFLOWS = frozenset({FailureCode.TOO_MANY_DEAD_LETTERS, FailureCode.ALL_DEAD})
"""How a job with more dead letters than it may have fails."""


@dataclass(frozen=True)
class Scenario:
    """A job and its source.

    `max_records` replaces the limit of 1,000,000 records of a segment, which no schedule reaches. A
    cancelled job is retried unless it `stays_cancelled`. `fate` is one of ASSEMBLED_FATES: what somebody or
    the store does to the job, once.
    """

    spec: JobSpec
    items: list[SourceItem]
    expected: Expected
    max_records: int = UNLIMITED
    stays_cancelled: bool = False
    fate: str = ""

    @cached_property
    def assembled(self) -> Assembled | None:
        """The dataset that an assembled job makes; None for any other job."""
        return Assembled(self.spec, self.expected) if self.spec.assembled else None

    @property
    def digest(self) -> str:
        """The digest of the dataset."""
        return self.expected.digest if self.assembled is None else self.assembled.digest

    @property
    def failures(self) -> frozenset[FailureCode]:
        """The codes of which the job must fail with one; none: it must complete."""
        if self.overflows:
            return OVERFLOWS
        refusal = None if self.assembled is None else self.assembled.refusal
        return frozenset() if refusal is None else frozenset({refusal})

    @property
    def foreign(self) -> bool:
        """Whether somebody puts an object of theirs into the dataset's folder."""
        return self.fate.startswith("foreign card")

    @property
    def overflows(self) -> bool:
        """Whether there are more dead letters than the job allows: more than a number, or nothing else."""
        allowed, dead = self.spec.quality.max_dead_letters, len(self.expected.dead_letters)
        return (allowed is not None and dead > allowed) or 0 < dead == len(self.items)

    def limits(self, spec: JobSpec) -> SegmentLimits:
        """Replaces `SegmentLimits.of`."""
        return SegmentLimits(spec.output.shard_bytes, 4 * spec.output.shard_bytes, self.max_records)

    @cached_property
    def room(self) -> int:
        """The scanned bytes from which on a producer may not send: what all open segments may take."""
        spec = self.spec
        return len(self.expected.partitions) * (4 * spec.output.shard_bytes + spec.max_document_bytes)

    def features(self) -> Counter[str]:
        """What the content has, to show that the seeds reach all of it."""
        found: Counter[str] = Counter()
        for part in self.expected.partitions:
            found["empty partition"] += not part
            for segment in part[:-1]:
                found[self._cut(segment.entries)] += 1
            if part:
                found["tail without rows"] += not part[-1].rows
                found["dead letter last"] += any(bool(segment.entries[-1].dead) for segment in part)
        ids = Counter(entry.key for segment in self.expected.segments for entry in segment.entries)
        found["doubles"] = sum(count - 1 for count in ids.values())
        found["dead letters"] = len(self.expected.dead_letters)
        found["huge"] = sum(dead["size"] > MAX_ORIGINAL_BYTES for dead in self.expected.dead_letters.values())
        found["empty source"] = not self.items
        found["too many dead letters"] = self.overflows
        found["compressed"] = self.spec.output.compression != "none"
        return found if self.assembled is None else found + self.assembled.features()

    def _cut(self, entries: list[Entry]) -> str:
        if sum(len(entry.row) for entry in entries) >= self.spec.output.shard_bytes:
            return "cut by rows"
        scanned = sum(entry.scanned for entry in entries)
        return "cut by scanned bytes" if scanned >= 4 * self.spec.output.shard_bytes else "cut by records"


def scenario(seed: int, slices: int = 1, *, assembled: bool = False) -> Scenario:
    """The scenario of a seed, with its source cut into slices. `assembled`: of an assembled job."""
    dice = random.Random(f"content of {seed}")
    fields = _fields(dice)
    if assembled:
        add_assembly(fields, dice)
    spec = job(**fields)
    items = _Writer(spec, dice).items()
    max_records = dice.choice((UNLIMITED, UNLIMITED, dice.randint(3, 12)))
    expected = expect(spec, items, max_records)
    dead = len(expected.dead_letters)
    match dice.randint(1, 8):
        case 1 if dead:
            spec = _allowing(spec, dice.randrange(dead))
        case 2:
            spec = _allowing(spec, dead)
    stays_cancelled = dice.random() < 0.5
    fates = ASSEMBLED_FATES if assembled else FATES
    fate = dice.choices(list(fates), list(fates.values()))[0]
    if slices > 1:
        spec = spec.model_copy(update={"slices": slices})
        expected = expect(spec, items, max_records)
    return Scenario(spec, items, expected, max_records, stays_cancelled, fate)


def _fields(dice: random.Random) -> dict[str, Any]:
    return {
        "job_id": "sim",
        "name": "sim",
        "quality": {
            "keep_rejected": dice.random() < 0.7,
            "min_score": dice.choice((0.5, 0.5, 0.5, 0.55, 0.0)),
            "max_dead_letter_ratio": 1,
        },
        "output": {
            "shard_bytes": dice.choice((1024, 1024, 1500, 3000)),
            "compression": dice.choice(("none", "none", "none", "gzip", "zstd")),
            "validation_fraction": dice.choice((0.0, 0.0, 0.0, 0.3)),
            "group_by": dice.choice((None, "domain")),
        },
        "partitions": dice.choice((1, 2, 2, 2, 3)),
        "max_document_bytes": dice.choice((1024, 1024, 2048)),
        "dead_letter_originals": dice.random() < 0.8,
    }


def add_assembly(fields: dict[str, Any], dice: random.Random) -> None:
    """Make a job that asks for an assembled dataset, by some of the fields that do."""
    quality, output = fields["quality"], fields["output"]
    quality["duplicate_ids"] = dice.choices(("keep", "first", "fail"), (6, 5, 1))[0]
    output["layout"] = "assembled"
    output["keep_staged"] = dice.random() < 0.2
    output["order"] = dice.choice((None, "source", {"seed": dice.randrange(9)}))
    near = dice.choice((False, False, {"bands": 4, "rows": 2}, {"bands": 6, "rows": 2, "verify": 0.5}))
    if dice.random() < 0.7:
        fields["dedup"] = {"exact": dice.random() < 0.7 or not near, "near": near}
        fields["dedup"]["ignore_case"] = dice.random() < 0.3
    if dice.random() < 0.3:
        rows = {"rows": dice.randint(1, 40)}
        fields["sample"] = {"seed": dice.randrange(9)} | dice.choice((rows, {"fraction": 0.6}))
    size = dice.choice(({"count": dice.randint(1, 4)}, {"multiple_of": dice.randint(1, 3)}, {"bytes": 1500}))
    if dice.random() < 0.7:
        output["shards"] = size | {"equal": dice.random() < 0.3}
    if output["validation_fraction"] == 0 and dice.random() < 0.6:
        splits: dict[str, Any] = {"train": 0.6, "validation": 0.4, "exact": dice.random() < 0.4}
        if dice.random() < 0.4 and not fields.get("dedup", {}).get("near"):
            splits["leak"] = "near"
        output["splits"] = splits


def _allowing(spec: JobSpec, dead_letters: int) -> JobSpec:
    quality = spec.quality.model_copy(update={"max_dead_letters": dead_letters})
    return spec.model_copy(update={"quality": quality})


class _Writer:
    """Writes the documents of a source: runs of one kind, in the shares of a mood."""

    def __init__(self, spec: JobSpec, dice: random.Random) -> None:
        self._spec = spec
        self._dice = dice
        self._number = 0
        self._ids: list[str] = []
        self._texts: list[str] = []
        # Some sources leave a partition empty.
        self._avoided = (
            dice.randrange(spec.partitions) if spec.partitions > 1 and dice.random() < 0.35 else -1
        )

    def items(self) -> list[SourceItem]:
        """The items."""
        dice = self._dice
        count = dice.choices((0, dice.randint(1, 6), dice.randint(20, 75)), (3, 10, 87))[0]
        shares = _MOODS[dice.choices(list(_MOODS), (5, 3, 2, 1, 1, 1))[0]]
        kinds: list[str] = []
        while len(kinds) < count:
            length = dice.choice((1, 1, 1, 2, dice.randint(3, 15)))
            kinds += dice.choices(_KINDS, shares) * length
        if count and dice.random() < 0.3:
            kinds += [dice.choice(_TAILS)] * dice.randint(1, 6)
        found = [self._content(kind) for kind in kinds]
        return [SourceItem((0, number, number), content, 100) for number, content in enumerate(found, 1)]

    def _content(self, kind: str) -> Document | InvalidDocument:
        dice = self._dice
        if kind in ("broken", "bulky"):
            size = dice.randint(1, 90) if kind == "broken" else dice.randint(600, 2500)
            return self._broken(b"{" * size)
        if kind == "double" and self._ids:
            return Document(dice.choice(self._ids), "v" * dice.randint(100, 600), dict(_FULL))
        size, limit = dice.randint(250, 700), self._spec.max_document_bytes
        text = {
            "poor": "p" * dice.randint(250, 900),
            "blank": dice.choice(("", " ", "\n\t")),
            "large": "l" * (limit + dice.randint(1, 200)),
            "huge": "h" * dice.randint(MAX_ORIGINAL_BYTES, MAX_ORIGINAL_BYTES + 9000),
            "odd": dice.choice(_ODD),
        }.get(kind, " ".join("w" * dice.randint(1, 9) for _ in range(size // 6)).ljust(size, "w"))
        if self._spec.assembled:
            text = self._copied(kind, text)
        metadata = {} if kind == "poor" else self._metadata(kind)
        relevance = dice.choice((0.0, 0.0, 0.25, 1 / 3)) if kind != "poor" else 0.0
        found = self._placed(lambda name: Document(f"doc-{name}", text, metadata, relevance))
        if isinstance(found, Document):
            self._ids.append(found.id)
        return found

    def _copied(self, kind: str, text: str) -> str:
        """Of some documents the text of an earlier one, as it is or a little changed."""
        dice = self._dice
        if kind != "good" or dice.random() < 0.6 or not self._texts:
            self._texts += [text] if kind == "good" else []
            return text
        changes: tuple[Callable[[str], str], ...] = (
            lambda text: text,
            lambda text: f"  {text.replace(' ', '  ', 3)}\n",
            str.upper,
            lambda text: f"{text[: -dice.randint(1, 20)]} {'v' * dice.randint(1, 9)}",
        )
        return dice.choice(changes)(dice.choice(self._texts))

    def _metadata(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = _FULL | {"domain": self._dice.choice("abcd")}
        if kind == "odd":
            pages: Any = self._dice.choice((3, 2.5, None, "ten", [1, 2]))
            found |= {"pages": pages, "title": self._dice.choice(("", None, "§ 1\u2028"))}
        return found

    def _broken(self, original: bytes) -> Document | InvalidDocument:
        digest = sha256(original).hexdigest()

        def broken(name: str) -> InvalidDocument:
            key = f"memory:{name}"
            reason = DeadLetterReason.INVALID_JSON
            return InvalidDocument(key, dead_letter(reason, key, original, digest, len(original)))

        return self._placed(broken)

    def _placed(self, make: Callable[[str], Document | InvalidDocument]) -> Document | InvalidDocument:
        """The first content of its kind that is in a wanted partition."""
        while True:
            self._number += 1
            content = make(str(self._number))
            if partition_of(self._spec, content) != self._avoided:
                return content
