"""The pictures of README.md: `make demo` in a terminal, and the gateway's page in a browser.

`make pictures` makes both anew. The terminal is a real run in a pseudo terminal. The page is that of a
gateway process with a producer and a worker, as the tests start it; it needs Chromium.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from contextlib import suppress
from pathlib import Path

import requests
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.gateway.browser import browser
from tests.gateway.system import Server, body, ended, eventually, running
from tools.terminal_screen import shown_lines

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
_ROWS, _COLUMNS = 40, 112
# A picture in a page loads nothing from elsewhere: the reader's own fonts are named instead.
_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code, monospace", "'Fira Code', 'DejaVu Sans Mono', Menlo, Consolas, monospace"
)


def recorded(command: list[str]) -> str:
    """Run a command of this project in a pseudo terminal and return what it wrote.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    env |= {"TERM": "xterm-256color"}
    done = subprocess.Popen(  # noqa: S603 - a command of this file
        command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    )
    os.close(theirs)
    written = b""
    # On Linux a terminal whose last program has ended answers a read with EIO.
    with suppress(OSError):
        while piece := os.read(ours, 65536):
            written += piece
    os.close(ours)
    if code := done.wait():
        raise subprocess.CalledProcessError(code, command, written)
    return written.decode()


def terminal_picture(title: str, written: str) -> str:
    """Draw what a terminal shows as SVG."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere, force_terminal=True)
        for line in shown_lines(written):
            console.print(Text.from_ansi(line), soft_wrap=True)
    return console.export_svg(title=title, theme=MONOKAI, code_format=_FORMAT, unique_id="terminal")


def _create(server: Server, words: str, name: str, **changes: object) -> str:
    answer = requests.post(f"{server.url}/api/datasets", json=body(words, name=name, **changes), timeout=60)
    return str(answer.json()["dataset_id"])


def _wait(server: Server, job: str, state: str, read: int = 0) -> None:
    """Return once the job is in the state and has read so many documents."""

    def reached() -> bool:
        found = requests.get(f"{server.url}/api/datasets/{job}/status", timeout=10).json()
        return bool(found["state"] == state and found["source_documents"] >= read)

    eventually(reached)


def page_picture(folder: Path, target: Path) -> None:
    """Photograph the gateway's list of jobs: one runs, one is cancelled, one is completed."""
    with running(folder / "gateway") as server, browser(folder / "browser") as chrome:
        ended(server.url, _create(server, "Satzung", "Satzungen", top_k=3000))
        stopped = _create(server, "slow endless", "Archiv", top_k=1000)
        _wait(server, stopped, "running", 100)
        requests.post(f"{server.url}/api/datasets/{stopped}/cancel", timeout=60)
        _wait(server, stopped, "cancelled")
        job = _create(server, "slow", "Baugenehmigungen", top_k=1000)
        # The page is loaded once the job is at work, so that the list is settled.
        _wait(server, job, "running", 100)
        chrome.set_window_size(1000, 700)
        chrome.get(server.url)
        _wait(server, job, "running", 400)
        height = chrome.execute_script("return document.body.scrollHeight")
        screen = {"width": 1000, "height": height, "deviceScaleFactor": 1.5, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        chrome.save_screenshot(str(target))


def main() -> None:
    """Make both pictures."""
    IMAGES.mkdir(exist_ok=True)
    written = recorded(["make", "--no-print-directory", "demo"])
    text = terminal_picture("make demo", "$ make demo\n" + written)
    (IMAGES / "demo.svg").write_text(text, encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        page_picture(Path(folder), IMAGES / "page.png")
    sys.stdout.write("docs/images/demo.svg\ndocs/images/page.png\n")


if __name__ == "__main__":
    main()
