"""The inputs of a decision: the sidecars of all segments, and the contents of other datasets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shardline_common.assembly.engine import Engine
from shardline_common.assembly.sidecar import BANDS, RECORDS, SIGNATURES, SidecarKind, Status
from shardline_common.dataset.chain import Totals
from shardline_common.dataset.decision import Counted, inputs_sha256, total
from shardline_common.dataset.decision_rules import Rules
from shardline_common.errors import FailureCode, JobFailed

# The contents that another dataset holds: of rows that it kept, each once or several times, in any order.
CONTENTS = SidecarKind("contents", (("content", "binary16"),))

_SQL_TYPES = {
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int64": "BIGINT",
    "uint64": "UBIGINT",
    "float64": "DOUBLE",
    "string": "VARCHAR",
    "binary": "BLOB",
    "binary16": "BLOB",
}


@dataclass(frozen=True, slots=True)
class Input:
    """A sidecar: its key in the dataset, a local file, and the sha256 of its values, proven by the caller."""

    key: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of one decision.

    `totals` are the sums of all chains. `against` has the files of `CONTENTS` of each dataset in the rules,
    in their order.
    """

    totals: Totals
    records: Sequence[Input]
    bands: Sequence[Input] = ()
    signatures: Sequence[Input] = ()
    against: Sequence[Sequence[Input]] = ()

    @property
    def sha256(self) -> str:
        """That of `inputs_sha256`. Datasets are in the rules."""
        return inputs_sha256({one.key: one.sha256 for one in (*self.records, *self.bands, *self.signatures)})


def define_inputs(engine: Engine, inputs: Inputs) -> None:
    """Make the inputs known to SQL as `records`, `bands`, `signatures` and `against`."""
    _define(engine, RECORDS, inputs.records)
    _define(engine, BANDS, inputs.bands)
    _define(engine, SIGNATURES, inputs.signatures)
    parts = []
    for number, files in enumerate(inputs.against):
        _define(engine, CONTENTS, files, f"contents_{number}")
        parts.append(f"SELECT content, {number} AS dataset FROM contents_{number}")
    engine.define(
        "against", " UNION ALL ".join(parts) or "SELECT NULL::BLOB AS content, 0 AS dataset WHERE false"
    )


def _define(engine: Engine, kind: SidecarKind, files: Sequence[Input], name: str | None = None) -> None:
    name = name or kind.name
    if files:
        engine.set(**{f"{name}_files": [str(one.path) for one in files]})
        engine.define(name, f"SELECT * FROM read_parquet(getvariable('{name}_files'))")
        return
    columns = (f'NULL::{_SQL_TYPES[written.rstrip("?")]} AS "{column}"' for column, written in kind.columns)
    engine.define(name, f"SELECT {', '.join(columns)} WHERE false")


@dataclass(frozen=True, slots=True)
class Landed:
    """What the sidecars hold: rows, and by their reasons rejections and dead letters."""

    rows: Counted
    rejected: Mapping[str, Counted]
    dead: Mapping[str, Counted]

    @property
    def all(self) -> Counted:
        """The sum of all."""
        return total((self.rows, *self.rejected.values(), *self.dead.values()))


def check_inputs(engine: Engine, inputs: Inputs, rules: Rules) -> Landed:
    """Count what the sidecars hold, and compare it with what the chains say.

    Raises:
        JobFailed: they differ (`conservation`): a sidecar is missing, is there twice, or is that of another
            dataset. Or rows lack what the rules need (`dataset_damaged`).
    """
    by_status: dict[int, dict[str, Counted]] = {status: {} for status in Status}
    row_bytes, lacking = 0, dict.fromkeys(("size", "content", "sample"), 0)
    for status, reason, records, hash_sum, size, *missing in engine.rows("totals"):
        by_status[status][reason] = Counted(records, hash_sum)
        if status == Status.ROW:
            row_bytes += size
            lacking = dict(zip(lacking, missing, strict=True))
    landed = Landed(
        total(by_status[Status.ROW].values()), by_status[Status.REJECTED], by_status[Status.DEAD_LETTER]
    )
    expected = inputs.totals
    pairs = {
        "rows": (landed.rows.records, expected.rows),
        "bytes of rows": (row_bytes, expected.bytes),
        "rejections": (_records(landed.rejected), dict(expected.rejected)),
        "dead letters": (_records(landed.dead), dict(expected.dead)),
        "the sum of id hashes": (landed.all.hash_sum, expected.hash_sum),
    }
    for what, (found, wanted) in pairs.items():
        if found != wanted:
            raise JobFailed(
                FailureCode.CONSERVATION,
                f"the sidecars do not fit the chains: {what}: {found}, the chains say {wanted}",
                hint="run `shardline verify` on the dataset",
            )
    needed = {"size": True, "content": rules.compares_contents, "sample": rules.sample is not None}
    for name, count in lacking.items():
        if needed[name] and count:
            raise JobFailed(
                FailureCode.DATASET_DAMAGED,
                f"{count} rows of the sidecars have no {name}, which the rules need",
                hint="submit a new job",
            )
    return landed


def _records(counts: Mapping[str, Counted]) -> dict[str, int]:
    return {reason: counted.records for reason, counted in counts.items()}
