"""load: each rank's part of a split, exact continuation, and damage that is found while reading."""

import asyncio
import pickle
import shutil
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest

import shardline
from shardline.errors import JobFailed, ServiceUnavailable, UsageError
from shardline.services.wiring.stores import s3_options
from shardline_common.settings.load import Settings
from shardline_common.storage.s3 import S3Store, open_s3
from tests.finished_datasets import make_dataset, rows_in
from tests.services import S3


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("packed"), "zstd")


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_ranks_read_each_row_once_in_order(plain: Path, packed: Path, compression: str, ranks: int) -> None:
    dataset = plain if compression == "none" else packed
    parts = [shardline.load(dataset, rank=rank, world_size=ranks) for rank in range(ranks)]
    found = [list(part) for part in parts]
    assert [row for rows in found for row in rows] == rows_in(plain)
    assert [len(rows) for rows in found] == [len(part) for part in parts]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_rank_reads_no_shard_of_another_where_the_shards_divide(plain: Path, tmp_path: Path) -> None:
    for rank in range(3):
        own = tmp_path / str(rank)
        shutil.copytree(plain, own)
        for number in range(6):
            if number // 2 != rank:
                next(own.glob(f"data/train/part-{number:05}-*")).unlink()
        assert list(shardline.load(own, rank=rank, world_size=3))
        with pytest.raises(JobFailed, match="is not in"):
            list(shardline.load(own))


def test_another_split(plain: Path) -> None:
    assert list(shardline.load(plain, split="validation")) == rows_in(plain, "validation")


@pytest.mark.parametrize("rows", [0, 1, 99, 150, -1])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_an_iteration_continues_behind_its_last_row(
    plain: Path, packed: Path, compression: str, rows: int
) -> None:
    dataset = plain if compression == "none" else packed
    whole = list(shardline.load(dataset, rank=1, world_size=2))
    count = rows % len(whole)
    first = shardline.load(dataset, rank=1, world_size=2)
    iterator = iter(first)
    seen = list(islice(iterator, count))
    # As JSON, because a trainer stores it in its checkpoint.
    state = orjson.loads(orjson.dumps(first.state_dict()))
    second = shardline.load(dataset, rank=1, world_size=2)
    second.load_state_dict(state)
    assert seen + list(second) == whole
    assert second.epoch == 1
    # The next epoch has all rows again.
    assert list(second) == whole


def test_a_state_behind_the_last_row_is_the_start_of_the_next_epoch(plain: Path) -> None:
    rows = shardline.load(plain)
    iterator = iter(rows)
    list(islice(iterator, len(rows)))
    again = shardline.load(plain)
    again.load_state_dict(rows.state_dict())
    assert len(list(again)) == len(rows)
    assert again.epoch == 2


def test_an_epoch_ends_once_however_it_is_asked_for(plain: Path) -> None:
    rows = shardline.load(plain)
    for number in range(3):
        assert rows.epoch == number
        for count, _ in enumerate(rows, 1):
            assert rows.epoch == number + (count == len(rows))
    assert rows.epoch == 3


def test_a_state_of_another_part_is_refused(plain: Path) -> None:
    state = shardline.load(plain, rank=0, world_size=2).state_dict()
    for other in (shardline.load(plain), shardline.load(plain, split="validation")):
        with pytest.raises(UsageError, match="the state is of another"):
            other.load_state_dict(state)
    own = shardline.load(plain, rank=0, world_size=2)
    for wrong in ({}, {**state, "rows": 10**9}, {**state, "rows": None}, {**state, "digest": "0"}):
        with pytest.raises(UsageError):
            own.load_state_dict(wrong)


def test_rows_can_be_pickled_for_other_processes(plain: Path) -> None:
    rows = shardline.load(plain, rank=1, world_size=3)
    assert list(pickle.loads(pickle.dumps(rows))) == list(rows)  # noqa: S301 - its own bytes


def test_the_parts_of_the_workers_of_a_rank(plain: Path) -> None:
    rank = shardline.load(plain, rank=1, world_size=2)
    workers = [rank.part(number, 3) for number in range(3)]
    assert [row for one in workers for row in one] == list(rank)


async def test_it_reads_inside_an_event_loop(plain: Path) -> None:
    rows = shardline.load(plain)
    assert await asyncio.to_thread(lambda: len(list(rows))) == len(rows)
    assert len(list(rows)) == len(rows)


def test_a_stopped_iteration_leaves_no_thread(plain: Path) -> None:
    before = threading.active_count()
    rows = iter(shardline.load(plain))
    next(rows)
    assert threading.active_count() > before
    del rows
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "opened", ["shardline.load(sys.argv[1])", "shardline.sync.stream(json.loads(sys.argv[2]))"]
)
def test_a_program_can_end_while_an_iterator_is_open(plain: Path, opened: str) -> None:
    source = {"type": "files", "paths": [str(plain.parents[2] / "sample.jsonl")]}
    script = f"import json, sys, shardline\nrows = iter({opened})\nprint(next(rows) is not None)"
    found = subprocess.run(
        [sys.executable, "-c", script, plain, orjson.dumps({"name": "laws", "source": source})],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, b"True\n", b"")


@pytest.mark.parametrize("damage", ["changed", "cut", "longer"])
def test_a_damaged_shard_is_an_error(plain: Path, tmp_path: Path, damage: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(plain, broken)
    shard = next(broken.glob("data/train/part-00002-*"))
    body = shard.read_bytes()
    changed = {
        "changed": body.replace(b"e", b"f", 1),
        "cut": body[: body.rindex(b"\n", 0, -1) + 1],
        "longer": body + b"{}\n",
    }
    shard.write_bytes(changed[damage])
    with pytest.raises((JobFailed, ServiceUnavailable), match=shard.name):
        list(shardline.load(broken))


def test_wrong_arguments_are_sentences(plain: Path, tmp_path: Path) -> None:
    wrong: list[tuple[Path, dict[str, Any], str]] = [
        (plain, {"split": "nix"}, "its splits are: train, validation"),
        (plain, {"rank": 2, "world_size": 2}, "ranks are 0 to 1"),
        (plain, {"rank": -1}, "ranks are 0 to 0"),
        (tmp_path, {}, "_SUCCESS"),
    ]
    for folder, arguments, hint in wrong:
        with pytest.raises(UsageError) as error:
            shardline.load(folder, **arguments)
        assert hint in str(error.value.hint)


def test_torch_is_imported_only_for_its_dataset(plain: Path) -> None:
    rows = shardline.load(plain)
    try:
        import torch  # noqa: F401 - not a dependency
    except ImportError:
        with pytest.raises(UsageError, match="torch"):
            rows.torch()
    else:
        assert list(rows.torch()) == list(rows)


def test_a_dataset_on_s3(plain: Path, tmp_path: Path, seaweed: S3) -> None:
    values = {
        "s3_bucket": seaweed.bucket,
        "aws_endpoint_url_s3": seaweed.endpoint,
        "aws_access_key_id": seaweed.access_key,
        "aws_secret_access_key": seaweed.secret_key,
    }

    async def copy() -> None:
        async with open_s3(s3_options(Settings(**values))) as client:
            store = S3Store(client, seaweed.bucket, tmp_path.name)
            for path in (*plain.glob("data/*/*"), plain / "manifest.json", plain / "_SUCCESS"):
                await store.create(str(path.relative_to(plain)), path)

    asyncio.run(copy())
    uri = f"s3://{seaweed.bucket}/{tmp_path.name}"
    parts = [shardline.load(uri, rank=rank, world_size=4, settings=values) for rank in range(4)]
    assert [row for part in parts for row in part] == rows_in(plain)
