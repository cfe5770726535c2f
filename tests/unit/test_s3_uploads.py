"""Files that are put are read in large pieces, and arrive whole."""

from pathlib import Path
from typing import Any

import pytest
from aiobotocore._endpoint_helpers import _IOBaseWrapper  # type: ignore[import-untyped]
from aiohttp.payload import get_payload

from shardline_common.storage.s3_uploads import Upload, UploadPayload, register_uploads

PIECE = 1 << 20


class Written:
    """Takes what a payload writes."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def write(self, piece: bytes) -> None:
        self.pieces.append(piece)


def payload(path: Path) -> UploadPayload:
    register_uploads()
    register_uploads()
    # As aiobotocore hands a file over.
    found: Any = get_payload(_IOBaseWrapper(Upload(path.open("rb", buffering=0))), disposition=None)
    assert isinstance(found, UploadPayload)
    return found


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5])
async def test_a_file_is_written_in_pieces_of_a_mebibyte(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a").write_bytes(data[:size])
    body = payload(tmp_path / "a")
    # Twice, because a request that is redirected is sent again.
    for _ in range(2):
        written: Any = Written()
        await body.write_with_length(written, size)
        assert b"".join(written.pieces) == data[:size]
        assert len(written.pieces) == -(-size // PIECE)
    assert body.size == size
    assert body.decode("latin-1").encode("latin-1") == data[:size]
    body._value.__wrapped__.close()


async def test_no_more_is_written_than_the_length_of_the_request(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100))
    body = payload(tmp_path / "a")
    written: Any = Written()
    await body.write_with_length(written, 30)
    await body.write(written)
    assert [len(piece) for piece in written.pieces] == [30, 100]
    body._value.__wrapped__.close()
