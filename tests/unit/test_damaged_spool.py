"""A spool file whose bytes change on the disk: the segment is read again, and nothing of it is stored."""

from pathlib import Path

import pytest

from shardline_common.errors import StoreUnavailable
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import Body, HashedFile
from tests.support.embedded import completed, small_job

ROW = b'{"document_id": "d%04d", "content": "text"}\n'


class CheckingStore(MemoryStore):
    """Refuses bytes that are not those of their hash. It damages the first file that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[str] = []

    async def create(self, key: str, body: Body, *, content_type: str = "application/json") -> None:
        if isinstance(body, HashedFile) and not self.refused:
            self.refused.append(body.sha256)
            with body.path.open("r+b") as file:
                file.write(b"damaged")
            raise StoreUnavailable("BadDigest")
        await super().create(key, body, content_type=content_type)


@pytest.mark.parametrize("compression", ["none", "zstd"])
async def test_a_damaged_spool_file_is_written_again(tmp_path: Path, compression: str) -> None:
    (tmp_path / "sample.jsonl").write_bytes(b"".join(ROW % number for number in range(1_200)))
    spec = small_job(quality={"min_score": 0}, output={"shard_bytes": 65_536, "compression": compression})
    undisturbed = await completed(spec, MemoryStore(), tmp_path)
    store = CheckingStore()
    assert (await completed(spec, store, tmp_path)).digest == undisturbed.digest
    assert store.refused
