"""A local directory as store: a file that its writer has hashed is linked, where that is possible."""

import errno
import os
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from shardline_common.errors import ObjectExists
from shardline_common.ports.store import HashedFile
from shardline_common.storage import directory
from shardline_common.storage.directory import HIDDEN, DirectoryStore

ROWS = b"rows"


def spooled(folder: Path) -> HashedFile:
    path = folder / "spool"
    path.write_bytes(ROWS)
    path.chmod(0o600)
    return HashedFile(path, sha256(ROWS).hexdigest())


async def test_a_hashed_file_becomes_the_object_without_a_copy(tmp_path: Path) -> None:
    body, store = spooled(tmp_path), DirectoryStore(tmp_path / "out")
    await store.create("data/part", body)
    target = tmp_path / "out" / "data" / "part"
    assert target.stat().st_ino == body.path.stat().st_ino
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~directory._umask()
    body.path.unlink()
    assert await store.get("data/part") == ROWS
    assert list((tmp_path / "out" / HIDDEN).iterdir()) == []


async def test_a_hashed_file_on_another_disk_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, store, real = spooled(tmp_path), DirectoryStore(tmp_path / "out"), os.link

    def link(source: Path, target: Path) -> None:
        if source == body.path:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    await store.create("data/part", body)
    assert await store.get("data/part") == ROWS
    assert (tmp_path / "out" / "data" / "part").stat().st_ino != body.path.stat().st_ino


async def test_a_hashed_file_replaces_no_object(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "out")
    await store.create("data/part", b"others")
    with pytest.raises(ObjectExists):
        await store.create("data/part", spooled(tmp_path))
    assert await store.get("data/part") == b"others"
    assert list((tmp_path / "out" / HIDDEN).iterdir()) == []
