"""Publishing a completed dataset: manifest, card and `_SUCCESS`, in this order, each create-only.

Processes that publish at the same time create the same bytes, so any of them may succeed. A manifest that is
in the store decides, whoever wrote it: card and `_SUCCESS` are derived from it. So a process of another
version can complete what a killed one has begun.
"""

from collections.abc import Callable, Sequence
from functools import partial

import orjson

from shardline_common.dataset.card import dataset_card, is_card_of
from shardline_common.dataset.contents import (
    DatasetContents,
    check_sizes,
    list_sizes,
    not_empty,
    read_contents,
)
from shardline_common.dataset.manifest import Manifest, build_manifest, differing_fields
from shardline_common.dataset.success import SuccessMarker, hash_of
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing, StoreUnavailable
from shardline_common.job.names import Layout, attempt_of_outcome
from shardline_common.job.outcome import Outcome, read_outcome
from shardline_common.job.plan import read_plan
from shardline_common.job.spec import JobSpec
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.create_or_read import create_or_get
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.read_again import read_until_equal

Sign = Callable[[bytes], bytes]
"""The Ed25519 signature of bytes."""


async def prove_publishable(store: ObjectStore, spec: JobSpec, produced: Sequence[tuple[int, int]]) -> None:
    """Check everything that could make `publish_dataset` fail, before the attempt is decided.

    `produced`: for each partition the number of messages, and their hash sum.

    Raises:
        JobFailed: a chain is broken, an object is missing, or the folder holds what is not of this dataset.
        StoreUnavailable: try again later.
    """
    layout = Layout.of(spec)
    contents = await read_contents(store, spec, layout, produced)
    digest = contents.digest

    async def is_manifest(body: bytes) -> bool:
        return await _is_manifest_of(store, spec, contents, body)

    async def is_card(body: bytes) -> bool:
        return is_card_of(body, digest)

    async def is_marker(body: bytes) -> bool:
        return body.startswith(digest.encode())

    # An earlier attempt may have been completed without being published.
    checks = ((layout.manifest, is_manifest), (layout.card, is_card), (layout.success, is_marker))
    for key, is_own in checks:
        try:
            standing = await store.get(key)
        except ObjectMissing:
            continue
        if await is_own(standing):
            continue
        again = await read_until_equal(partial(store.get, key), standing)
        if again == standing or not await is_own(again):
            raise not_empty(layout, [key.removeprefix(layout.root)])


async def publish_dataset(
    store: ObjectStore, spec: JobSpec, outcome: Outcome, clock: Clock, sign: Sign | None = None
) -> str | None:
    """Create manifest, card and `_SUCCESS`; the last one not when a later attempt is decided.

    Returns the key of that attempt's outcome record; None: the dataset is published.

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
    if await read_outcome(store, layout, outcome.attempt) is None:
        # A manifest without its outcome could not be adopted later. The attempt is decided again.
        raise StoreUnavailable(f"{layout.outcome(outcome.attempt)} is not in the store, where it was created")
    contents = await read_contents(store, spec, layout, outcome.produced)
    digest = contents.digest
    built = build_manifest(spec, outcome, await read_plan(store, layout), contents)
    body = orjson.dumps(built, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    manifest = await create(layout.manifest, body, "application/json")
    if manifest != body and not await _is_manifest_of(store, spec, contents, manifest):
        raise _taken(layout.manifest)
    failpoint("worker.after_manifest")
    body = dataset_card(orjson.loads(manifest)).encode()
    card = await create(layout.card, body, "text/markdown")
    if card != body and not is_card_of(card, digest):
        raise _taken(layout.card)
    hashes = {"manifest.json": hash_of(manifest), "README.md": hash_of(card)}
    # Again, because objects may have been lost or added since.
    sizes = await list_sizes(store, layout)
    check_sizes(contents, sizes, layout)
    outcomes = [key for key in sizes if attempt_of_outcome(key)]
    if later := [key for key in outcomes if attempt_of_outcome(key) > outcome.attempt]:
        # A job that could not be published was cancelled or retried meanwhile: this process is late.
        return layout.root + later[0]
    hashes |= await _outcome_hashes(store, layout, outcome, outcomes)
    marker = SuccessMarker(digest, hashes)
    if sign is not None:
        marker = SuccessMarker(digest, hashes, sign(marker.signed_bytes))
    standing = await create(layout.success, marker.encode(), "text/plain")
    if not _is_marker_of(standing, marker, manifest):
        raise _taken(layout.success)
    failpoint("worker.after_success")
    return None


async def _outcome_hashes(
    store: ObjectStore, layout: Layout, outcome: Outcome, keys: Sequence[str]
) -> dict[str, str]:
    """The sha256 of each outcome record, by relative key."""
    own, hashes = layout.outcome(outcome.attempt), {}
    for key in keys:
        read = partial(store.get, layout.root + key)
        # `_SUCCESS` would name a damaged read for ever.
        body = await read_until_equal(read, await read())
        if layout.root + key == own and Outcome.decode(body, own).encode() != outcome.encode():
            raise JobFailed(
                FailureCode.DATASET_DAMAGED,
                f"{own}: this outcome record was changed",
                hint="restore or delete this object, then retry the job",
            )
        hashes[key] = hash_of(body)
    if own.removeprefix(layout.root) not in hashes:
        raise StoreUnavailable(f"{own} is not in the store, where it was a moment ago")
    return hashes


async def is_published(store: ObjectStore, layout: Layout, attempt: int) -> bool:
    """Whether `_SUCCESS` is in the store, and names the attempt, and the manifest and card that are there."""
    return await unpublished_reason(store, layout, attempt) is None


async def unpublished_reason(store: ObjectStore, layout: Layout, attempt: int) -> str | None:
    """Why the dataset is not published, as a sentence; None: it is published."""
    try:
        marker = SuccessMarker.decode(await store.get(layout.success))
        manifest, card = await store.get(layout.manifest), await store.get(layout.card)
        if marker.digest != Manifest.decode(manifest).digest:
            return f"{layout.success} names another digest than {layout.manifest}"
    except (JobFailed, ObjectMissing) as error:
        return str(error)
    hashes = {"manifest.json": hash_of(manifest), "README.md": hash_of(card)}
    # Version 0.1 names the digest only.
    outcome = layout.outcome(attempt).removeprefix(layout.root)
    if not marker.hashes or (outcome in marker.hashes and hashes.items() <= marker.hashes.items()):
        return None
    return f"{layout.success} does not name attempt {attempt}, or names another manifest or card"


async def _create(store: ObjectStore, clock: Clock, key: str, body: bytes, content_type: str) -> bytes:
    """Create an object. Returns the bytes in the store: these, or those of another process."""
    standing = await create_or_get(store, key, body, clock, content_type=content_type)
    if standing is None or standing == body:
        return body
    # `_SUCCESS` would name the hash of a damaged read for ever.
    return await read_until_equal(partial(store.get, key), standing)


def _taken(key: str) -> JobFailed:
    return JobFailed(
        FailureCode.OUTPUT_NOT_EMPTY,
        f"{key} exists with other content; nothing was overwritten",
        hint=f"move or delete {key}, then retry the job",
    )


async def _is_manifest_of(store: ObjectStore, spec: JobSpec, contents: DatasetContents, body: bytes) -> bool:
    """Whether `verify` accepts a manifest, of whichever attempt, for these contents."""
    layout = Layout.of(spec)
    try:
        manifest = Manifest.decode(body)
        if manifest.digest != contents.digest or manifest.version == 1:
            return manifest.digest == contents.digest
        outcome = await read_outcome(store, layout, manifest.attempt)
    except JobFailed:
        return False
    if outcome is None or outcome.ending != "completed":
        return False
    plan = await read_plan(store, layout)
    return not differing_fields(orjson.loads(body), spec, outcome, plan, contents)


def _is_marker_of(body: bytes, marker: SuccessMarker, manifest: bytes) -> bool:
    # The signature may differ: a process without the key writes none. Version 0.1 writes no hashes.
    try:
        found = SuccessMarker.decode(body)
        if not found.hashes and found.digest == marker.digest:
            return Manifest.decode(manifest).version == 1
    except JobFailed:
        return False
    return found.signed_bytes == marker.signed_bytes
