"""Worker processes: nothing runs twice, and nothing is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import pytest

from shardline_common.runtime.processes import open_processes, result_of
from tests.support.dying import die_while_sending

_SECONDS = 60
# It has no `if __name__ == "__main__"`, and its workers never end by themselves.
_SCRIPT = """
import asyncio, os, time
from shardline_common.runtime.processes import open_processes

print("main", flush=True)

async def work():
    async with open_processes(2, os.getpid) as executor:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(executor, os.getpid)
        sleeping = [loop.run_in_executor(executor, time.sleep, 600) for _ in range(2)]
        print("ready", flush=True)
        await asyncio.gather(*sleeping)

try:
    asyncio.run(work())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "printed"), [(signal.SIGINT, "interrupted\n"), (signal.SIGKILL, "")], ids=["SIGINT", "SIGKILL"]
)
def test_workers_end_with_the_process_that_started_them(number: int, printed: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    process = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        # Ctrl-C reaches the whole group, a kill only the parent.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        # The output ends when the last process has closed it: no worker is left.
        out, errors = process.communicate(timeout=_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (lines, out) == (["main\n", "ready\n"], printed)
    # After a kill, Python itself reports that it removed the semaphores of the process.
    assert errors == "" if number == signal.SIGINT else "Traceback" not in errors


async def test_an_error_stops_calls_that_run() -> None:
    sleeping: asyncio.Future[None] | None = None

    async def fail() -> None:
        nonlocal sleeping
        async with open_processes(2, os.getpid) as executor:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(executor, os.getpid)
            sleeping = loop.run_in_executor(executor, time.sleep, 600)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert sleeping is not None
    # It was stopped, or had not begun: it never returns.
    with pytest.raises((BrokenProcessPool, asyncio.CancelledError)):
        await sleeping


async def test_a_process_that_is_killed_while_it_sends_breaks_the_pool() -> None:
    async with asyncio.timeout(_SECONDS), open_processes(2, os.getpid) as executor:
        assert await result_of(executor, executor.submit(abs, -21)) == 21
        with pytest.raises(BrokenProcessPool):
            await result_of(executor, executor.submit(die_while_sending))
