"""Ends what a test process leaves running, however that process ends: also by Ctrl-C or SIGKILL.

Each pytest process (the controller and every worker of pytest-xdist) starts a reaper, and marks what it
starts itself by a variable in the environment. The reaper has a session of its own, which Ctrl-C does not
reach. It reads a pipe that only the test process holds open, and that ends with it. Then the reaper ends
every process with the mark: servers in sessions of their own, servers of other users, and what they started.

The reaper of the controller also watches the `make` above it. Interrupted alone, `make` waits for the tests
to end and does not interrupt them; the reaper does it instead.
"""

import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import psutil

VARIABLE = "SHARDLINE_TEST_PROCESS"
MEMORY = Path("/dev/shm")  # noqa: S108 - folders in it are made by mkdtemp
_TERM_SECONDS, _LOOK_SECONDS = 3.0, 0.5
_MAKE = ("make", "gmake")


def start_reaper() -> None:
    """Mark what this process starts from now on, and start the reaper that ends it."""
    mark = f"{os.getpid()}-{secrets.token_hex(8)}"
    # The reaper carries no mark: the reaper of a test process further up must not end this one.
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    reaper = subprocess.Popen(
        [sys.executable, __file__, str(os.getpid()), mark],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _reapers.append(reaper)
    os.environ[VARIABLE] = mark


_reapers: list[subprocess.Popen[bytes]] = []
"""Holds the pipe open until the process ends."""


def tell_of_interrupt() -> None:
    """Tell the reaper that this process is interrupted: to do it again would break off its cleaning up."""
    for reaper in _reapers:
        if reaper.stdin is not None:
            with suppress(OSError):
                reaper.stdin.write(b"i")
                reaper.stdin.flush()


def marked(environment: Mapping[str, str]) -> dict[str, str]:
    """A bare environment of a process, with the mark of this test process if it has one."""
    own = {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}
    return own | dict(environment)


def memory_folder(name: str) -> Path:
    """Make a folder in memory, which the reaper removes."""
    return Path(mkdtemp(prefix=f"shardline-{os.environ[VARIABLE]}-{name}-", dir=MEMORY))


def processes_of(mark: str) -> Iterator[psutil.Process]:
    """The processes that run and carry the mark."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(VARIABLE) == mark:
                yield process


def end_processes(mark: str) -> None:
    """End them: SIGTERM, then SIGKILL until none is left, because each may start others meanwhile."""
    number = signal.SIGTERM
    while found := list(processes_of(mark)):
        for process in found:
            with suppress(psutil.Error):
                process.send_signal(number)
        psutil.wait_procs(found, _TERM_SECONDS)
        number = signal.SIGKILL


def _catches_interrupt(pid: int) -> bool:
    """Whether a process handles SIGINT. `make` does until the first one; then it waits for its children."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "SigCgt":
            return bool(int(value, 16) & 1 << signal.SIGINT - 1)
    return False


def _make_above(pid: int) -> int | None:
    """The `make` that runs a process, where it can be interrupted."""
    with suppress(psutil.Error, OSError):
        for process in psutil.Process(pid).parents():
            if process.name() in _MAKE:
                return process.pid if _catches_interrupt(process.pid) else None
    return None


def main(pid: int, mark: str) -> None:
    """Wait for the end of a test process, then end and remove what it left."""
    make = _make_above(pid)
    while True:
        told, _, _ = select.select([0], [], [], _LOOK_SECONDS if make else None)
        if told and not os.read(0, 1):
            break
        if told:
            make = None
        elif make and psutil.pid_exists(make) and not _catches_interrupt(make):
            # Ctrl-C interrupts the tests too: they tell within this time.
            if not select.select([0], [], [], _TERM_SECONDS)[0]:
                os.kill(pid, signal.SIGINT)
            make = None
    end_processes(mark)
    for folder in MEMORY.glob(f"shardline-{mark}-*"):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
