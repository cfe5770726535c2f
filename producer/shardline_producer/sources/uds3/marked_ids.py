"""The documents that the stores beside PostgreSQL mark deleted, for a scan: read once, and kept on disk."""

import weakref
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from threading import Lock

from shardline_common.runtime.task_group import TaskGroup
from shardline_common.runtime.tasks import leaf_errors
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.uds3.scratch import ScratchDatabase
from shardline_producer.sources.uds3.store_ports import STORE_ORDER, MarksDeleted

# SQLite allows 999 values of a statement at least.
_LOOKED_UP = 500


class MarkedIds:
    """Ids of deleted documents, each with the first store of `STORE_ORDER` that marks it. All calls block.

    Its database is closed when the object is garbage collected.
    """

    def __init__(self) -> None:
        # A scratch database takes one call at a time; the stores are read concurrently.
        self._lock = Lock()
        self._any = False
        self._database = ScratchDatabase()
        weakref.finalize(self, self._database.close)
        self._database.execute(
            "CREATE TABLE marked (id TEXT PRIMARY KEY, place INTEGER NOT NULL) WITHOUT ROWID"
        )

    def add(self, store: str, ids: Sequence[str]) -> None:
        """Add the ids of documents that the store marks deleted."""
        place = STORE_ORDER.index(store)
        with self._lock:
            self._any = self._any or bool(ids)
            self._database.write(
                "INSERT INTO marked VALUES (?, ?)"
                " ON CONFLICT (id) DO UPDATE SET place = min(place, excluded.place)",
                ((identity, place) for identity in ids),
            )

    def stores_of(self, ids: Sequence[str]) -> dict[str, str]:
        """The store that marks each of these documents, by its id; a document without a mark is not in it."""
        with self._lock:
            if not self._any:
                return {}
            places = dict[str, int]()
            for start in range(0, len(ids), _LOOKED_UP):
                part = ids[start : start + _LOOKED_UP]
                marks = ", ".join("?" * len(part))
                query = f"SELECT id, place FROM marked WHERE id IN ({marks})"  # noqa: S608 - placeholders
                places.update(self._database.rows(query, part))
        return {identity: STORE_ORDER[places[identity]] for identity in ids if identity in places}


async def read_marks(stores: Mapping[str, MarksDeleted]) -> MarkedIds:
    """The documents that the stores, by their names in findings, mark deleted."""
    marked = MarkedIds()
    with leaf_errors():
        async with TaskGroup() as tasks:
            for name, store in stores.items():
                tasks.create_task(_read(marked, name, store))
    return marked


async def _read(marked: MarkedIds, name: str, store: MarksDeleted) -> None:
    async with aclosing(store.deleted_ids()) as pages:
        async for page in pages:
            await run_in_thread(partial(marked.add, name, page))
