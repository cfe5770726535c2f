"""More forgeries that `verify` finds: downgrades, names that are no keys, and odd entries of directories."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from shardline.services.sample import write_sample
from shardline_common.dataset.chain import Chain
from shardline_common.dataset.success import SuccessMarker, hash_of
from shardline_common.dataset.verify import Report, Verifier
from shardline_common.errors import JobFailed
from shardline_common.job.names import Layout
from shardline_common.memory.store import MemoryStore
from shardline_common.storage.directory import DirectoryStore
from tests.support.embedded import run_embedded, small_job

SPEC = small_job(
    partitions=2,
    output={"shard_bytes": 16_384, "validation_fraction": 0.2},
    quality={"min_score": 0.5, "keep_rejected": True},
)
ROOT = Layout.of(SPEC).root


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The objects of a finished dataset, by relative key."""
    folder = tmp_path_factory.mktemp("forged")
    write_sample(folder / "sample.jsonl", 60, broken=True)

    async def objects() -> dict[str, bytes]:
        store = MemoryStore()
        await run_embedded(SPEC, store, folder)
        return {info.key.removeprefix(ROOT): await store.get(info.key) async for info in store.list(ROOT)}

    return asyncio.run(objects())


@pytest.fixture
def dataset(finished: dict[str, bytes], tmp_path: Path) -> Path:
    """The dataset in a directory."""
    for key, body in finished.items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(body)
    return tmp_path


async def verified(dataset: Path) -> Report:
    async with asyncio.timeout(20):
        return await Verifier(DirectoryStore(dataset), "").run()


def name_in_success(dataset: Path, hashes: dict[str, str | None]) -> None:
    """Write _SUCCESS with other hashes; None leaves a key out."""
    marker = SuccessMarker.decode((dataset / "_SUCCESS").read_bytes())
    named = {key: value for key, value in {**marker.hashes, **hashes}.items() if value is not None}
    (dataset / "_SUCCESS").write_bytes(SuccessMarker(marker.digest, named).encode())


def downgrade(dataset: Path) -> None:
    manifest = orjson.loads((dataset / "manifest.json").read_bytes())
    (dataset / "manifest.json").write_bytes(orjson.dumps({**manifest, "version": 1}))


def change_a_rejection_and_downgrade(dataset: Path) -> None:
    for path in (dataset / "rejected").iterdir():
        path.write_bytes(path.read_bytes().replace(b'"document_id":"', b'"document_id":"x', 1))
    downgrade(dataset)
    digest = (dataset / "_SUCCESS").read_bytes().split(b"\n")[0]
    (dataset / "_SUCCESS").write_bytes(digest + b"\n")


def downgrade_success(dataset: Path) -> None:
    digest = (dataset / "_SUCCESS").read_bytes().split(b"\n")[0]
    (dataset / "_SUCCESS").write_bytes(digest + b"\n")


def leave_the_card_out(dataset: Path) -> None:
    name_in_success(dataset, {"README.md": None})
    (dataset / "README.md").write_bytes(b"mine")


def name_a_foreign_object(dataset: Path) -> None:
    (dataset / "notes.txt").write_bytes(b"x")
    name_in_success(dataset, {"notes.txt": hash_of(b"x")})


def sign_with_three_bytes(dataset: Path) -> None:
    with (dataset / "_SUCCESS").open("ab") as file:
        file.write(b"signature AAAA\n")


FORGERIES: dict[str, Callable[[Path], object]] = {
    "manifest of version 1": downgrade,
    "everything of version 1, a rejection changed": change_a_rejection_and_downgrade,
    "_SUCCESS of version 1": downgrade_success,
    "_SUCCESS leaves the card out": leave_the_card_out,
    "_SUCCESS names a foreign object": name_a_foreign_object,
    "_SUCCESS names a key outside": lambda dataset: name_in_success(dataset, {"../x": "0" * 64}),
    "_SUCCESS names an absolute path": lambda dataset: name_in_success(dataset, {"/etc/passwd": "0" * 64}),
    "_SUCCESS names no key": lambda dataset: name_in_success(dataset, {"a\\b": "0" * 64}),
    "_SUCCESS has no signature's length": sign_with_three_bytes,
    "a broken link": lambda dataset: (dataset / "data/train/x.jsonl").symlink_to("/nonexistent"),
    "a link to a folder": lambda dataset: (dataset / "data/test").symlink_to("train"),
    "a FIFO": lambda dataset: os.mkfifo(dataset / "data/train/x.jsonl"),
    "a FIFO among plan pages": lambda dataset: plan_page(dataset, os.mkfifo, b"x.json"),
    "a name that is not UTF-8": lambda dataset: touch(os.fsencode(dataset) + b"/data/train/\xff.jsonl"),
    "a chain record that is not UTF-8": lambda dataset: touch(
        os.fsencode(dataset) + b"/_state/chain/00000/\xff"
    ),
    "a chain record with a backslash": lambda dataset: touch(
        os.fsencode(dataset) + b"/_state/chain/00000/a\\b.json"
    ),
    "a plan page with a backslash": lambda dataset: plan_page(dataset, touch, b"a\\b.json"),
    "a hidden file of another name": lambda dataset: (dataset / ".shardline-x").touch(),
}


def touch(path: bytes) -> None:
    with open(path, "xb"):  # noqa: PTH123 - a Path cannot be made of these bytes
        pass


def plan_page(dataset: Path, make: Callable[[bytes], object], name: bytes) -> None:
    (dataset / "_state/plan").mkdir()
    make(os.fsencode(dataset) + b"/_state/plan/" + name)


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_verify_finds_it(dataset: Path, forgery: str) -> None:
    FORGERIES[forgery](dataset)
    report = await verified(dataset)
    assert report.problems
    assert not report.ok
    # What is printed and encoded.
    assert orjson.dumps(report.to_json())


async def test_the_dataset_is_sound_without_them(dataset: Path) -> None:
    report = await verified(dataset)
    assert report.ok, report.problems


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, touch])
async def test_a_foreign_entry_in_a_chain_fails_the_job(
    dataset: Path, make: Callable[[bytes], object]
) -> None:
    folder = dataset / "_state/chain/00000"
    make(os.fsencode(folder / "zz.json"))
    if (folder / "zz.json").is_dir():
        (folder / "zz.json/x").touch()
    with pytest.raises(JobFailed, match=r"zz\.json.* is no chain record"):
        await Chain(DirectoryStore(dataset), Layout(""), 0).head()
