"""Tests that are interrupted: test_interrupts.py runs this file, and pytest does not find it by its name.

Each starts servers and processes of every kind that the suite has, writes their ids to $PIDS, and sleeps.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.databases import Database
from tests.services import S3
from tests.stores import Address

_DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def _started(*command: str, session: bool = False) -> psutil.Popen:
    return psutil.Popen(command, start_new_session=session)


def _hang(name: str, *more: int) -> None:
    here = psutil.Process()
    # A pause lets what forks once more do so.
    time.sleep(0.5)
    pids = [here.pid, *(process.pid for process in here.children(recursive=True)), *more]
    folder = Path(os.environ["PIDS"])
    (folder / f"{name}.tmp").write_text("\n".join(map(str, pids)))
    (folder / f"{name}.tmp").rename(folder / name)
    time.sleep(600)


def test_servers(seaweed: S3, couch: Address, postgres_server: Database, chroma: Address) -> None:
    assert all((seaweed, couch, postgres_server, chroma))
    _hang("servers")


def test_processes() -> None:
    _started("sleep", "600")
    _started("sleep", "600", session=True)
    _started(sys.executable, "-c", _DEAF)
    stopped = _started("sleep", "600")
    stopped.send_signal(signal.SIGSTOP)
    orphan = subprocess.run(
        ["sh", "-c", "sleep 600 > /dev/null & echo $!"], stdout=subprocess.PIPE, check=True
    )
    _hang("processes", int(orphan.stdout))
