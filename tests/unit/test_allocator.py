"""The settings of the C library's allocator."""

import os
import subprocess
import sys

import pytest

from shardline_common.runtime.allocator import keep_freed_memory

# Blocks of 1 MiB, as those of files, which are freed and allocated again.
SCRIPT = """
import resource, sys
from shardline_common.runtime.allocator import keep_freed_memory
changed = keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    blocks = [bytearray(1 << 20) for _ in range(8)]
    del blocks
before = faults()
for _ in range(20):
    blocks = [bytearray(1 << 20) for _ in range(8)]
    del blocks
print(changed, faults() - before)
"""


def run(**settings: str) -> tuple[str, int]:
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | settings, capture_output=True, text=True, check=True
    ).stdout.split()
    return found[0], int(found[1])


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of glibc")
def test_freed_blocks_are_used_again_without_page_faults() -> None:
    changed, faults = run()
    if changed == "False":
        pytest.skip("this C library has no mallopt")
    assert faults < 1000


def test_settings_of_the_environment_are_stronger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert keep_freed_memory() is False
