"""What stands behind the tables of a job: partitions, tables under views, and their files. Pure.

A table that was made again, was truncated, or lost a partition has other relations than at planning.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from shardline_common.job.findings import Certainty, Level

_FOREIGN, _MATERIALIZED = "f", "m"


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, view, partition or inheritance child that is read. The names are stored in plans.

    `kind` as in pg_class. `file`: the number of its file, which TRUNCATE and any rewriting change; 0 if it
    has none. `policies`: it has row-level security. `calls`: it is a view that reads rows of functions.
    `syncing`: it is filled by a subscription whose first copy has not ended. `view`: the hash of a view's
    definition; empty for other kinds.
    """

    oid: int
    name: str
    kind: str
    file: int
    policies: bool = False
    calls: bool = False
    syncing: bool = False
    view: str = ""


@dataclass(frozen=True, slots=True)
class TableState:
    """The identity of a table, and the types of its columns by their names."""

    oid: int
    types: Mapping[str, str]


def table_change(
    planned: Mapping[str, TableState], found: Mapping[str, TableState], marks: Collection[str]
) -> str | None:
    """What changed in the tables since planning so that the job must end; None if nothing did.

    `found`: all tables of the plan that exist, and those that a plan of today would use beside them. `marks`:
    the names of the columns that mark documents as deleted.
    """
    for name, before in planned.items():
        if (now := found.get(name)) is None:
            return f"table {name} was dropped or renamed"
        if now.oid != before.oid:
            return f"table {name} was dropped and made again"
        for column, type_name in before.types.items():
            if now.types.get(column) != type_name:
                return f"column {column} of table {name} was dropped, renamed or given another type"
    for name, now in found.items():
        known = planned[name].types if name in planned else {}
        if added := sorted(column for column in marks if column in now.types and column not in known):
            return f"table {name} has a new column {', '.join(added)}, which marks documents as deleted"
    return None


def lost_relations(planned: Sequence[Relation], found: Sequence[Relation]) -> list[str]:
    """The names of relations that are no longer read, such as a partition that was detached."""
    oids = {relation.oid for relation in found}
    return [relation.name for relation in planned if relation.oid not in oids]


def redefined_views(planned: Sequence[Relation], found: Sequence[Relation]) -> list[str]:
    """The names of views that have another definition, and so maybe other rows."""
    views = {relation.oid: relation.view for relation in found}
    return [one.name for one in planned if one.view and views.get(one.oid, one.view) != one.view]


def rewritten_relations(planned: Sequence[Relation], found: Sequence[Relation]) -> list[str]:
    """The names of relations with another file: truncated, or rewritten, as VACUUM FULL does."""
    files = {relation.oid: relation.file for relation in found}
    return [one.name for one in planned if files.get(one.oid, one.file) != one.file]


def certainty(relations: Sequence[Relation], *, standby: bool) -> Certainty:
    """How certain it is that what these relations gave is all that they have.

    A list is read in byte order of the ids, each page in one snapshot, to the end that the server's protocol
    proves. What lies behind a foreign table, a function or a publisher has no such proof.
    """
    for relation in relations:
        doubt = ""
        if relation.kind == _FOREIGN:
            doubt = f"{relation.name} is a foreign table, whose server may hide rows"
        elif relation.calls:
            doubt = f"the view {relation.name} reads rows of a function, which may leave out some"
        elif relation.syncing:
            doubt = f"the first copy of {relation.name} from its publisher has not ended"
        if doubt:
            return Certainty(Level.UNPROVEN, doubt)
    stale = next((relation for relation in relations if relation.kind == _MATERIALIZED), None)
    if stale is not None:
        how = f"the materialized view {stale.name} has the rows of its last REFRESH"
        return Certainty(Level.COUNTED, how)
    if standby:
        return Certainty(Level.COUNTED, "the server is a standby, which may lag behind its primary")
    return Certainty(Level.PROVEN, "each page was listed in one snapshot, to the end that the server sends")
