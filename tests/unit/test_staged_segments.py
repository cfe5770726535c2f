"""Staged segments: sorted rows, and a line in the sidecar for each record, whatever the polls."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_common.assembly.content_hash import content_hash
from shardline_common.assembly.minhash import Signer
from shardline_common.assembly.sidecar import BANDS, SIGNATURES
from shardline_common.assembly.stored_sidecars import sidecar_facts
from shardline_common.dataset.chain import ChainRecord
from shardline_common.job.hashing import document_hash, group_hash, order_key, sample_key
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_consumer.filters.clara import Judge
from tests.staged import (
    EVERYTHING,
    SCORE,
    Item,
    assembled_job,
    chain,
    land,
    lines,
    messages,
    sidecar,
    sink_of,
)

WORDS = ("eins", "zwei", "drei", "vier", "fünf", 'se"chs', "sie\\ben")
ITEMS = st.lists(
    st.builds(
        Item,
        st.sampled_from(["row", "row", "row", "rejected", "empty", "dead"]),
        st.sampled_from([f"dokument-{n}" for n in range(12)] + ["ä/§ 3"]),
        st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join),
    ),
    max_size=40,
)
SIZES = st.lists(st.integers(1, 9), max_size=20)
JOBS = st.sampled_from(
    [
        {},
        EVERYTHING,
        {"output": {"order": {"seed": 7}}},
        {"output": {"order": "source"}, "dedup": {"near": True}},
        {"dedup": {"exact": True, "ignore_case": True}, "output": {"compression": "gzip"}},
    ]
)
few = settings(max_examples=25)


async def landed(spec: JobSpec, items: Sequence[Item], sizes: Sequence[int], spool: Path) -> MemoryStore:
    store = MemoryStore()
    await land(sink_of(store, spool, spec), messages(items), iter(sizes))
    assert list(spool.iterdir()) == []
    return store


def expected_lines(spec: JobSpec, items: Sequence[Item]) -> list[dict[str, Any]]:
    """The lines of the sidecars of all segments, by sequence and without places: by the specification."""
    judge, found = Judge(SCORE), []
    seed, sample = spec.order_seed, spec.sample
    for sequence, item in enumerate(items):
        key, row = item.id.encode(), item.kind == "row"
        text = content_hash(item.text, ignore_case=bool(spec.dedup and spec.dedup.ignore_case))
        below = item.kind == "rejected"
        found.append(
            {
                "position": 3 * (sequence + 1),
                "id": item.id,
                "status": {"row": 0, "dead": 2}.get(item.kind, 1),
                "reason": {"rejected": "below_min_score", "empty": "empty", "dead": "invalid_json"}.get(
                    item.kind
                ),
                "value": judge(1, 0, 0, 0.0).score / 10_000 if below else None,
                "threshold": SCORE if below else None,
                "order": 0 if seed is None else order_key(seed, key),
                "content": text if row and spec.dedup else None,
                "group": group_hash(key),
                "sample": sample_key(sample.seed, key) if sample else None,
                "id_hash": document_hash(key),
                "words": 3 if row else None,
                "score": judge(1001, 3, 0, 0.0).score if row else None,
            }
        )
    return found


def without_place(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("offset", "size", "row_hash")}


@few
@given(JOBS, ITEMS, SIZES)
async def test_sidecars_list_every_record_and_rows_are_sorted(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any], items: list[Item], sizes: list[int]
) -> None:
    spec, folder = assembled_job(**changes), tmp_path_factory.mktemp("spool")
    store = await landed(spec, items, sizes, folder)
    expected = expected_lines(spec, items)
    for record in await chain(store, spec):
        found = await lines(store, spec, sidecar(record, "records").key, folder)
        own = sorted(expected[record.first : record.next], key=lambda one: (one["order"], one["position"]))
        assert [without_place(line) for line in found] == own
        rows = await store.get(record.key) if record.key else b""
        pieces = [line for line in found if line["status"] == 0]
        assert [rows[line["offset"] : line["offset"] + line["size"]] for line in pieces] == rows.splitlines(
            True
        )
        # Each of them is the row of its line.
        by_position = {3 * (number + 1): item for number, item in enumerate(items)}
        for line, row in zip(pieces, map(orjson.loads, rows.splitlines()), strict=True):
            item = by_position[line["position"]]
            assert (row["document_id"], row["text"]) == (item.id, item.text)
        hashes = [int.from_bytes(sha256(row).digest()[:8], "big") for row in rows.splitlines(True)]
        assert [line["row_hash"] for line in pieces] == hashes
        places = ("offset", "size", "row_hash")
        assert all(line[name] is None for line in found if line["status"] for name in places)
        await same_sums(store, record, folder)


async def same_sums(store: MemoryStore, record: ChainRecord, folder: Path) -> None:
    """The sums of a sidecar are those of its chain record."""
    path = folder / "records.parquet"
    path.write_bytes(await store.get(f"test/test/{sidecar(record, 'records').key}"))
    facts, segment = sidecar_facts("records", path), record.segment
    path.unlink()
    assert (facts.rows, facts.bytes, facts.hash_sum) == (segment.rows, segment.bytes, segment.hash_sum)
    assert (facts.rejected, facts.dead) == (segment.rejected, segment.dead)
    assert facts.values_sha256 == sidecar(record, "records").plain_sha256


@few
@given(ITEMS)
async def test_bands_and_signatures_are_those_of_the_texts(
    tmp_path_factory: pytest.TempPathFactory, items: list[Item]
) -> None:
    spec, folder = assembled_job(**EVERYTHING), tmp_path_factory.mktemp("spool")
    store, signer = await landed(spec, items, (), folder), Signer(3, 2, 0)
    for record in await chain(store, spec):
        signed = {
            3 * (number + 1): signature
            for number, item in enumerate(items[record.first : record.next], record.first)
            if item.kind == "row" and (signature := signer.sign(item.text)) is not None
        }
        bands = sorted(
            (band, value, position)
            for position, signature in signed.items()
            for band, value in signer.bands(signature)
        )
        found = await lines(store, spec, sidecar(record, "bands").key, folder, BANDS)
        assert [(line["band"], line["hash"], line["position"]) for line in found] == bands
        kept = await lines(store, spec, sidecar(record, "signatures").key, folder, SIGNATURES)
        assert [(line["position"], line["signature"]) for line in kept] == sorted(signed.items())


@few
@given(JOBS, ITEMS, SIZES, st.data())
async def test_the_bytes_do_not_depend_on_polls_and_replays(
    tmp_path_factory: pytest.TempPathFactory,
    changes: dict[str, Any],
    items: list[Item],
    sizes: list[int],
    data: st.DataObject,
) -> None:
    spec, folder, records = assembled_job(**changes), tmp_path_factory.mktemp("spool"), messages(items)
    again = data.draw(st.integers(0, len(items)))
    back = data.draw(st.integers(0, again))
    polled = MemoryStore()
    await land(sink_of(polled, folder, spec), records[:again] + records[back:], iter(sizes))
    once = await landed(spec, items, (), folder)
    first, second = [{info.key: info.etag async for info in store.list("")} for store in (polled, once)]
    assert first == second
