"""pull: the files that come, what is kept of an earlier pull, and what is refused."""

import asyncio
import shutil
import threading
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from shardline.cli.app import app
from shardline.services.pull import Pulled, PullRequest, pull_dataset
from shardline.services.pull_files import PART, locked_folder
from shardline_common.errors import JobFailed, UsageError
from shardline_common.settings.load import Settings
from tests.finished_datasets import SPLITS, change_manifest, make_dataset

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("packed"), "zstd")


def pull(dataset: Path, folder: Path, request: PullRequest | None = None) -> Pulled:
    return asyncio.run(pull_dataset(str(dataset), folder, Settings(), request or PullRequest()))


def command(*args: object) -> Result:
    return CliRunner().invoke(app, ["pull", *map(str, args)], catch_exceptions=True)


def shards(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.glob("data/*/*"))}


def joined(dataset: Path, split: str) -> bytes:
    return b"".join(body for key, body in shards(dataset).items() if key.startswith(f"data/{split}/"))


def test_a_pull_has_every_shard_the_card_and_the_manifest(plain: Path, tmp_path: Path) -> None:
    pulled = pull(plain, tmp_path / "out")
    assert shards(tmp_path / "out") == shards(plain)
    assert (pulled.kept_bytes, pulled.fetched_bytes) == (0, sum(map(len, shards(plain).values())))
    names = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert names == {"data", "README.md", "manifest.json", "_SUCCESS"}
    assert sorted(map(str, pulled.files)) == [str(tmp_path / "out" / key) for key in shards(plain)]


def test_a_second_pull_fetches_nothing(plain: Path, tmp_path: Path) -> None:
    pull(plain, tmp_path)
    again = pull(plain, tmp_path)
    assert (again.fetched_bytes, again.kept_bytes) == (0, sum(map(len, shards(plain).values())))


def test_a_pull_continues_in_the_middle_of_a_shard(plain: Path, tmp_path: Path) -> None:
    key, body = next(iter(shards(plain).items()))
    half = len(body) // 2
    (tmp_path / key).parent.mkdir(parents=True)
    (tmp_path / f"{key}{PART}").write_bytes(body[:half])
    pulled = pull(plain, tmp_path)
    assert pulled.kept_bytes == half
    assert shards(tmp_path) == shards(plain)


@pytest.mark.parametrize("left", [b"", b"not these bytes", bytes(1 << 20)])
def test_wrong_bytes_of_an_earlier_pull_are_replaced(plain: Path, tmp_path: Path, left: bytes) -> None:
    for key in shards(plain):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{key}{PART}").write_bytes(left)
        (tmp_path / key).write_bytes(left)
    pulled = pull(plain, tmp_path)
    assert shards(tmp_path) == shards(plain)
    assert pulled.fetched_bytes + pulled.kept_bytes == sum(map(len, shards(plain).values()))


def test_a_split_and_the_shards_of_a_rank(plain: Path, tmp_path: Path) -> None:
    everything = shards(plain)
    train = [key for key in everything if key.startswith("data/train/")]
    pull(plain, tmp_path / "split", PullRequest(split="train"))
    assert [*shards(tmp_path / "split")] == train
    # The card names splits that are not there.
    assert not (tmp_path / "split" / "README.md").exists()
    for number in range(3):
        folder = tmp_path / str(number)
        pull(plain, folder, PullRequest(split="train", part=(number, 3)))
        assert [*shards(folder)] == train[2 * number : 2 * number + 2]


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_single_file_has_the_rows_of_a_split(
    plain: Path, packed: Path, tmp_path: Path, compression: str
) -> None:
    dataset = plain if compression == "none" else packed
    pulled = pull(dataset, tmp_path, PullRequest(single_file=True))
    assert [path.name for path in pulled.files] == [f"{split}.jsonl" for split in SPLITS]
    for split in SPLITS:
        assert (tmp_path / f"{split}.jsonl").read_bytes() == joined(plain, split)


def test_a_single_file_continues_where_rows_are_missing(plain: Path, tmp_path: Path) -> None:
    pull(plain, tmp_path, PullRequest(single_file=True))
    whole = (tmp_path / "train.jsonl").read_bytes()
    (tmp_path / "train.jsonl").write_bytes(whole[: len(whole) // 2] + b"other")
    again = pull(plain, tmp_path, PullRequest(single_file=True))
    assert (tmp_path / "train.jsonl").read_bytes() == whole
    assert 0 < again.fetched_bytes < len(whole) * 3 // 4


def test_a_whole_copy_can_be_verified(plain: Path, tmp_path: Path) -> None:
    pull(plain, tmp_path / "copy", PullRequest(all_objects=True))
    found = CliRunner().invoke(app, ["verify", str(tmp_path / "copy"), "--json"])
    assert orjson.loads(found.stdout)["problems"] == []


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_a_dataset_of_version_0_1_is_pulled(name: str, tmp_path: Path) -> None:
    pull(GOLDEN / name, tmp_path)
    assert shards(tmp_path) == shards(GOLDEN / name)
    pull(GOLDEN / name, tmp_path / "joined", PullRequest(single_file=True))
    assert (tmp_path / "joined" / "train.jsonl").read_bytes()


def test_a_damaged_shard_gets_no_name(plain: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(plain, broken)
    key, body = next(iter(shards(plain).items()))
    (broken / key).write_bytes(body[:-10] + b"0" * 9 + b"\n")
    for request in (PullRequest(), PullRequest(single_file=True)):
        with pytest.raises(JobFailed, match=key):
            pull(broken, tmp_path / str(request.single_file), request)
    assert not (tmp_path / "False" / key).exists()
    assert not (tmp_path / "False" / "_SUCCESS").exists()
    assert not (tmp_path / "True" / "train.jsonl").exists()


def test_a_shard_that_is_longer_than_promised_does_not_reach_the_next_one(
    plain: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(plain, broken)
    first, second = [*shards(plain)][:2]
    (broken / first).write_bytes((plain / first).read_bytes() + b"{}\n")
    with pytest.raises(JobFailed, match=first):
        pull(broken, tmp_path, PullRequest(split="train", single_file=True))
    part = (tmp_path / f"train.jsonl{PART}").read_bytes()
    start = len((plain / first).read_bytes())
    body = (plain / second).read_bytes()
    assert part[start : start + len(body)] in (body, bytes(len(body)))


@pytest.mark.parametrize("key", ["../evil.jsonl", "/evil.jsonl", "data/../../evil.jsonl"])
def test_a_key_cannot_leave_the_folder(plain: Path, tmp_path: Path, key: str) -> None:
    forged = tmp_path / "a" / "forged"
    shutil.copytree(plain, forged)
    manifest = orjson.loads((forged / "manifest.json").read_bytes())
    old = manifest["shards"][0]["key"]
    manifest["shards"][0]["key"] = key
    for one in manifest["objects"]:
        one["key"] = key if one["key"] == old else one["key"]
    change_manifest(forged, manifest)
    with pytest.raises(UsageError, match="object key"):
        pull(forged, tmp_path / "b" / "out")
    assert not list(tmp_path.rglob("evil*"))


def test_a_folder_with_another_dataset_is_refused(plain: Path, packed: Path, tmp_path: Path) -> None:
    pull(plain, tmp_path)
    with pytest.raises(UsageError, match="another dataset"):
        pull(packed, tmp_path)
    # It was not pulled, so it has no lock.
    with pytest.raises(UsageError, match="another dataset"):
        pull(packed, plain)


def test_two_pulls_into_one_folder_come_one_after_the_other(plain: Path, tmp_path: Path) -> None:
    waited = threading.Event()
    manifest = (plain / "manifest.json").read_bytes()
    found: list[Pulled] = []
    with locked_folder(tmp_path, manifest, lambda: None):

        def second() -> None:
            with locked_folder(tmp_path, manifest, waited.set):
                pass
            found.append(pull(plain, tmp_path))

        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(60)
        assert not found
    thread.join(60)
    assert found[0].rows


def test_wrong_arguments_are_sentences(plain: Path, tmp_path: Path) -> None:
    for args, words in (
        (("--split", "nix"), "train, validation"),
        (("--shards", "8/8"), "0/8 to 7/8"),
        (("--shards", "one"), "0/8"),
        (("--all-objects", "--single-file"), "pull all splits"),
    ):
        found = command(plain, tmp_path / "out", *args)
        assert isinstance(found.exception, UsageError), found.output
        assert words in str(found.exception) + str(found.exception.hint)
    found = command(tmp_path / "nothing", tmp_path / "out")
    assert isinstance(found.exception, UsageError)


def test_the_command_prints_the_folder_or_the_files(plain: Path, tmp_path: Path) -> None:
    assert command(plain, tmp_path / "a").stdout == f"{tmp_path / 'a'}\n"
    single = command(plain, tmp_path / "b", "--single-file", "--split", "train")
    assert single.stdout == f"{tmp_path / 'b' / 'train.jsonl'}\n"
    found = orjson.loads(command(plain, tmp_path / "a", "--json").stdout)
    assert found["fetched_bytes"] == 0
    assert found["rows"] == sum(body.count(b"\n") for body in shards(plain).values())
