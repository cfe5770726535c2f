"""datasets: the finished datasets below a folder or in a bucket."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import orjson

from shardline_common.dataset.published import MANIFEST, SUCCESS
from shardline_common.errors import JobFailed, ObjectMissing
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.read_again import read_again
from shardline_common.runtime.tasks import gather_limited

_READS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class ListedDataset:
    """A finished dataset. `completed_at` is when its job was completed, in ISO 8601."""

    uri: str
    name: str
    job_id: str
    completed_at: str
    rows: int
    bytes: int
    digest: str

    def to_json(self) -> dict[str, Any]:
        """The dataset as `datasets --json` prints it."""
        return asdict(self)


async def list_datasets(store: ObjectStore, name: str | None = None) -> list[ListedDataset]:
    """The finished datasets below the root of a store, by name, the newest last. `name`: only those of it.

    All keys are listed, and the manifest of each dataset is read. One that cannot be read is left out:
    `verify` says what is wrong with it.

    Raises:
        StoreUnavailable: the store cannot be read now.
    """
    folders: dict[str, set[str]] = {}
    async for info in store.list(""):
        folder, _, file = info.key.rpartition("/")
        if file in (SUCCESS, MANIFEST):
            folders.setdefault(folder, set()).add(file)
    finished = [folder for folder, files in folders.items() if files == {SUCCESS, MANIFEST}]
    found = await gather_limited([partial(_read, store, folder) for folder in finished], _READS_AT_ONCE)
    listed = [one for one in found if one is not None and name in (None, one.name)]
    return sorted(listed, key=lambda one: (one.name, one.completed_at, one.job_id))


async def _read(store: ObjectStore, folder: str) -> ListedDataset | None:
    async def read() -> ListedDataset | None:
        try:
            manifest = orjson.loads(await store.get(f"{folder}/{MANIFEST}" if folder else MANIFEST))
            job, totals = manifest["job"], manifest["totals"]
            return ListedDataset(
                f"{store.uri}/{folder}" if folder else store.uri,
                job["name"],
                job["job_id"],
                manifest["completed_at"],
                totals["rows"],
                totals["bytes"],
                manifest["digest"],
            )
        except (ValueError, KeyError, TypeError, ObjectMissing):
            return None

    try:
        return await read_again(read)
    except JobFailed:
        return None
