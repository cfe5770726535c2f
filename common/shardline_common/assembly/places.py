"""The place of a record in SQL: its split, and one number for its key."""

from collections.abc import Sequence
from pathlib import Path

from shardline_common.assembly.engine import Engine
from shardline_common.job.hashing import MODULUS


def define_places(engine: Engine, bounds: Sequence[int | None]) -> None:
    """Define the macros `split_of` and `key_of`.

    Args:
        engine: where they are defined.
        bounds: for each split the group hash below which a record is in it, unless an earlier split has it.
            None: every group hash is below.
    """
    cases = " ".join(
        f"WHEN {'true' if below is None else f'group_hash < {below}::UBIGINT'} THEN {number}"
        for number, below in enumerate(bounds)
    )
    engine.macro("split_of", "group_hash", f"(CASE {cases} END)::UBIGINT")
    key = f"(sort_key::UHUGEINT * {MODULUS}::UHUGEINT + place::UHUGEINT)"
    engine.macro("key_of", "sort_key, place", key)


def load_moved(engine: Engine, path: Path) -> None:
    """Fill the table `moved` from the list of the moved groups."""
    engine.set(step=[str(path)])
    engine.run("load_step")
    engine.run("load_moved")
