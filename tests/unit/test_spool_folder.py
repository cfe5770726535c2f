"""Spool folders: one's own while one lives, swept away afterwards, never taken from the living."""

import subprocess
import sys
from pathlib import Path

import pytest

from shardline_common.errors import SpoolError
from shardline_consumer.spool.folder import spool_folder, spool_limit, sweep_spool

HOLD = """
import sys, time
from pathlib import Path
from shardline_consumer.spool.folder import spool_folder
with spool_folder(Path(sys.argv[1])) as folder:
    (folder / "segment-1").write_bytes(b"rows")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_folder_goes_with_its_process_and_a_killed_one_is_swept(tmp_path: Path) -> None:
    with spool_folder(tmp_path) as mine:
        with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            theirs = Path(other.stdout.readline().decode().strip())
            assert sweep_spool(tmp_path) == []
            assert (theirs / "segment-1").exists()
            other.kill()
        assert sweep_spool(tmp_path) == [theirs]
        assert mine.exists()
        assert not theirs.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shardline-notes").mkdir()
    with spool_folder(tmp_path):
        assert (tmp_path / "shardline-notes").exists()


def test_the_spool_leaves_the_reserve(tmp_path: Path) -> None:
    assert spool_limit(tmp_path, 1000, 0) == 1000
    assert spool_limit(tmp_path, 1 << 60, 0) < 1 << 60
    with pytest.raises(SpoolError, match="less than"):
        spool_limit(tmp_path, 1000, 1 << 60)
    with pytest.raises(SpoolError, match="cannot be written"), spool_folder(tmp_path / "missing"):
        pass
