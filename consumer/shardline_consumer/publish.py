"""Publishing a completed dataset: manifest, card and `_SUCCESS`.

All three are pure functions of job, plan, chains and outcome. Workers that publish at the same time create
the same bytes, so any of them may succeed.
"""

import orjson

from shardline_common.dataset.card import dataset_card
from shardline_common.dataset.manifest import build_manifest
from shardline_common.errors import FailureCode, JobFailed, ObjectExists
from shardline_common.job.names import Layout
from shardline_common.job.outcome import Outcome
from shardline_common.job.plan import read_plan
from shardline_common.job.spec import JobSpec
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.failpoints import failpoint


async def publish_dataset(store: ObjectStore, spec: JobSpec, outcome: Outcome) -> None:
    """Create manifest, card and `_SUCCESS`, in this order. An existing object with the same bytes is kept.

    Raises:
        JobFailed: a chain is broken, or one of the keys has other content (`not_reproducible`).
        ObjectMissing: the dataset was deleted.
        StoreUnavailable: try again later.
    """
    layout = Layout.of(spec)
    manifest = await build_manifest(store, spec, outcome, await read_plan(store, layout))
    body = orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    await _create(store, layout.manifest, body, "application/json")
    failpoint("worker.after_manifest")
    await _create(store, layout.card, dataset_card(manifest).encode(), "text/markdown")
    await _create(store, layout.success, manifest["digest"].encode() + b"\n", "text/plain")
    failpoint("worker.after_success")


async def _create(store: ObjectStore, key: str, body: bytes, content_type: str) -> None:
    try:
        await store.create(key, body, content_type=content_type)
    except ObjectExists:
        if await store.get(key) != body:
            raise JobFailed(
                FailureCode.NOT_REPRODUCIBLE, f"{key} exists with other content; nothing was overwritten"
            ) from None
