"""`verify` names each kind of damage to a dataset."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shardline.services.sample import write_sample
from shardline_common.dataset.verify import Verifier
from shardline_common.errors import ObjectMissing
from shardline_common.job.names import Layout
from shardline_common.memory.store import MemoryStore
from tests.support.embedded import DOCUMENTS, completed, first_key, small_job, verify


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample")
    write_sample(path / "sample.jsonl", DOCUMENTS)
    return path


Tamper = Callable[[bytes], bytes | None]


@pytest.mark.parametrize(
    ("folder_of", "tamper", "said"),
    [
        ("data/train/", lambda body: body.replace(b'"text":"', b'"text":"X', 1), "its sha256 is"),
        ("data/train/", lambda body: body[: len(body) // 2], "cut off"),
        ("data/train/", lambda body: body + body.split(b"\n")[0] + b"\n", "the chain says"),
        (
            "data/train/",
            lambda body: body.replace(b'"source":"files"', b'"source":5', 1),
            "source is not a str",
        ),
        ("data/train/", lambda _: b"x" * (6 << 20), "a line has more than 5242880 bytes"),
        ("data/train/", lambda _: None, "there is no"),
        ("_state/chain/00000/", lambda _: None, "the chain should continue at sequence 0"),
        ("_state/chain/00001/", lambda body: body.replace(b'"rows": ', b'"rows": 1', 1), "do not add up"),
        ("manifest.json", lambda body: body.replace(b'"digest": "', b'"digest": "0', 1), "the manifest says"),
        ("manifest.json", lambda body: body.replace(b'"count": ', b'"count": 1', 1), "the source counted"),
        ("manifest.json", lambda body: body[:50], "cannot be read"),
        ("manifest.json", lambda _: b"[]", "cannot be read"),
        ("manifest.json", lambda _: None, "there is no manifest.json"),
        ("_SUCCESS", lambda _: None, "there is no _SUCCESS"),
        ("_SUCCESS", lambda _: b"other", "_SUCCESS names another digest"),
    ],
)
async def test_verify_names_the_damage(folder: Path, folder_of: str, tamper: Tamper, said: str) -> None:
    store, spec = MemoryStore(), small_job()
    await completed(spec, store, folder)
    key = await first_key(store, Layout.of(spec).root + folder_of)
    body = tamper(await store.get(key))
    await store.delete([key])
    if body is not None:
        await store.create(key, body)
    report = await verify(spec, store)
    assert not report.ok
    assert any(said in problem for problem in report.problems), report.problems


async def test_an_empty_store_is_no_dataset() -> None:
    with pytest.raises(ObjectMissing):
        await MemoryStore().get("x")
    report = await Verifier(MemoryStore(), "").run()
    assert (report.ok, len(report.problems)) == (False, 1)
