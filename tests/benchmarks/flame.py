"""A profile of `shardline run` as a flame graph: `python -m tests.benchmarks.flame PICTURE`.

py-spy samples the thread that holds the interpreter lock, from outside of the process. It has an
environment of its own, as the peers have.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from tests.benchmarks.aims.run import corpus, environment, run_command
from tests.benchmarks.common import write_corpus
from tests.benchmarks.peers.environments import Peer, install

PY_SPY = Peer("py-spy", {"title": "py-spy", "licence": "MIT", "pip": ["py-spy==0.4.3"]})
WIDTH, ROW, LETTER = 1200, 16, 6.3
"""Pixels: of the picture, of the height of a frame, and of a letter."""

_LEAST = 0.002
_DEEPEST = 22
_SHORTEST = 3
_RATE = 150
_COLOURS = (
    ("shardline_producer", "#8fb8de"),
    ("shardline_consumer", "#9fd3a4"),
    ("shardline_common", "#f2c879"),
    ("shardline", "#e3a6c4"),
    ("asyncio", "#d98880"),
    ("threading", "#d98880"),
    ("concurrent", "#d98880"),
)
_OTHER = "#d5d8dc"
# Where the event loop calls a task, and where a pool's thread calls its work.
_LOOP = re.compile(r"(?:Handle|TimerHandle)\._run \(")
_THREAD = re.compile(r"(?:_WorkItem\.run|Thread\.run|Thread\._bootstrap_inner) \(")


@dataclass
class Frame:
    """A function with the samples in which it was on the stack, and those that it called."""

    name: str
    samples: int = 0
    called: dict[str, "Frame"] = field(default_factory=dict)

    def add(self, stack: Sequence[str], samples: int) -> None:
        """Add a stack, from the outermost frame on."""
        self.samples += samples
        if stack:
            self.called.setdefault(stack[0], Frame(stack[0])).add(stack[1:], samples)

    def depth(self) -> int:
        """The number of rows below this frame, itself included."""
        return 1 + max((one.depth() for one in self.called.values()), default=0)


def shortened(stack: Sequence[str]) -> list[str]:
    """A stack that begins with where its work runs, without the frames that every stack has."""
    stack = [frame for frame in stack if "<frozen" not in frame]
    for pattern, name in ((_LOOP, "event loop"), (_THREAD, "threads")):
        found = [number for number, frame in enumerate(stack) if pattern.match(frame)]
        if found:
            return [name, *stack[found[-1] + 1 :]]
    for number, frame in enumerate(stack):
        if frame.startswith("BaseEventLoop._run_once"):
            return ["event loop", *stack[number:]]
    return ["start and end", *stack]


def read_folded(lines: Iterable[str]) -> Frame:
    """The frames of a folded profile: a stack with `;` between its frames, and its samples, in each line."""
    root = Frame("all")
    for line in lines:
        stack, _, samples = line.rstrip().rpartition(" ")
        root.add(shortened(stack.split(";")), int(samples))
    return root


def picture(title: str, root: Frame) -> str:
    """The flame graph as SVG: the outermost frame is at the top, a frame is as wide as its samples."""
    height = (min(root.depth(), _DEEPEST) + 2) * ROW
    boxes = "\n".join(_boxes(root, 0.0, 1, root.samples))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="10.5">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text x="4" y="12">{escape(title)}</text>\n{boxes}\n</svg>\n'
    )


def _boxes(frame: Frame, left: float, row: int, total: int) -> Iterator[str]:
    width = frame.samples / total * WIDTH
    if frame.samples / total < _LEAST or row > _DEEPEST:
        return
    share = f"{frame.samples / total:.1%}"
    fits = int(width / LETTER) - 1
    text = frame.name.removeprefix("<module> (").partition(" (")[0]
    shown = text if len(text) <= fits else f"{text[: max(fits - 1, 0)]}…"
    label = (
        f'<text x="{left + 2:.1f}" y="{row * ROW + 12}">{escape(shown)}</text>' if fits > _SHORTEST else ""
    )
    yield (
        f'<g><title>{escape(frame.name)} {share}</title><rect x="{left:.1f}" y="{row * ROW}" '
        f'width="{max(width - 0.5, 0.5):.1f}" height="{ROW - 1}" fill="{_colour(frame.name)}"/>{label}</g>'
    )
    for called in sorted(frame.called.values(), key=lambda one: -one.samples):
        yield from _boxes(called, left, row + 1, total)
        left += called.samples / total * WIDTH


def _colour(name: str) -> str:
    file = name.partition(" (")[2]
    return next((colour for prefix, colour in _COLOURS if file.startswith(prefix)), _OTHER)


def main() -> None:
    """Profile one run and write its picture."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.flame")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--python", default=sys.executable, help="of an environment with a Shardline")
    parser.add_argument("--title", default="shardline run")
    given = parser.parse_args()
    install(PY_SPY)
    with tempfile.TemporaryDirectory(prefix="shardline-flame-") as name:
        folder = Path(name)
        write_corpus(corpus(folder, given.documents), given.documents)
        command = [given.python, *run_command(folder, given.documents, 8 << 20)[1:]]
        spy = [str(PY_SPY.folder / "bin" / "py-spy"), "record", "--gil", "--function", "--rate", str(_RATE)]
        folded = folder / "folded.txt"
        arguments = ["--format", "raw", "--output", str(folded), "--", *command]
        subprocess.run([*spy, *arguments], check=True, capture_output=True, env=environment(), cwd=folder)
        root = read_folded(folded.read_text().splitlines())
    title = f"{given.title}: {given.documents:,} documents of 2 KB"
    given.picture.write_text(picture(title, root))


if __name__ == "__main__":
    main()
