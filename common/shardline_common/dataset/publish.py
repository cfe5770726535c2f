"""Publishing a completed dataset: manifest, card and `_SUCCESS`, in this order, each create-only.

Processes that publish at the same time create the same bytes, so any of them may succeed. A manifest that is
in the store decides, whoever wrote it: card and `_SUCCESS` are derived from it. So a process of another
version can complete what a killed one has begun.
"""

from collections.abc import Callable
from functools import partial

import orjson

from shardline_common.dataset.card import dataset_card, is_card_of
from shardline_common.dataset.contents import not_empty, read_contents
from shardline_common.dataset.manifest import Manifest, build_manifest
from shardline_common.dataset.success import SuccessMarker, hash_of
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.job.names import Layout
from shardline_common.job.outcome import Outcome
from shardline_common.job.plan import read_plan
from shardline_common.job.spec import JobSpec
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.create_or_read import create_or_get
from shardline_common.runtime.failpoints import failpoint

Sign = Callable[[bytes], bytes]
"""The Ed25519 signature of bytes."""


async def prove_publishable(store: ObjectStore, spec: JobSpec) -> None:
    """Check everything that could make `publish_dataset` fail, before the attempt is decided.

    Raises:
        JobFailed: a chain is broken, an object is missing, or the folder holds what is not of this dataset.
        StoreUnavailable: try again later.
    """
    layout = Layout.of(spec)
    digest = (await read_contents(store, spec, layout)).digest
    # An earlier attempt may have been completed without being published.
    for key, is_own in (
        (layout.manifest, lambda body: _is_manifest_of(body, digest)),
        (layout.card, lambda body: is_card_of(body, digest)),
        (layout.success, lambda body: body.startswith(digest.encode())),
    ):
        try:
            standing = await store.get(key)
        except ObjectMissing:
            continue
        if not is_own(standing):
            raise not_empty(layout, [key.removeprefix(layout.root)])


async def publish_dataset(
    store: ObjectStore, spec: JobSpec, outcome: Outcome, clock: Clock, sign: Sign | None = None
) -> None:
    """Create manifest, card and `_SUCCESS`; the last one not when a later attempt is decided.

    Args:
        store: the store of the dataset.
        spec: the job.
        outcome: the outcome `completed` of its attempt.
        clock: measures how long a store that refuses a key has no object under it.
        sign: signs `_SUCCESS`; None leaves the signature out.

    Raises:
        JobFailed: a chain is broken, or one of the three keys has an object of somebody else.
        ObjectMissing: the dataset was deleted.
        StoreUnavailable: try again later.
    """
    layout = Layout.of(spec)
    create = partial(_create, store, clock)
    contents = await read_contents(store, spec, layout)
    digest = contents.digest
    built = build_manifest(spec, outcome, await read_plan(store, layout), contents)
    body = orjson.dumps(built, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    is_manifest = partial(_is_manifest_of, digest=digest)
    manifest = await create(layout.manifest, body, "application/json", is_manifest)
    failpoint("worker.after_manifest")
    body = dataset_card(orjson.loads(manifest)).encode()
    card = await create(layout.card, body, "text/markdown", partial(is_card_of, digest=digest))
    hashes = {"manifest.json": hash_of(manifest), "README.md": hash_of(card)}
    async for info in store.list(layout.outcomes):
        if layout.attempt_of(info.key) > outcome.attempt:
            # A job that could not be published was cancelled or retried meanwhile: this process is late.
            return
        hashes[info.key.removeprefix(layout.root)] = hash_of(await store.get(info.key))
    marker = SuccessMarker(digest, hashes)
    if sign is not None:
        marker = SuccessMarker(digest, hashes, sign(marker.signed_bytes))
    await create(layout.success, marker.encode(), "text/plain", partial(_is_marker_of, marker=marker))
    failpoint("worker.after_success")


async def _create(
    store: ObjectStore,
    clock: Clock,
    key: str,
    body: bytes,
    content_type: str,
    is_own: Callable[[bytes], bool],
) -> bytes:
    """Create an object. Returns the bytes in the store: these, or those of another process that published."""
    standing = await create_or_get(store, key, body, clock, content_type=content_type)
    if standing is None:
        return body
    if standing == body or is_own(standing):
        return standing
    raise JobFailed(
        FailureCode.OUTPUT_NOT_EMPTY,
        f"{key} exists with other content; nothing was overwritten",
        hint=f"move or delete {key}, then retry the job",
    )


def _is_manifest_of(body: bytes, digest: str) -> bool:
    try:
        return Manifest.decode(body).digest == digest
    except JobFailed:
        return False


def _is_marker_of(body: bytes, marker: SuccessMarker) -> bool:
    # Only the signature may differ: a process without the key writes none.
    try:
        return SuccessMarker.decode(body).signed_bytes == marker.signed_bytes
    except JobFailed:
        return False
