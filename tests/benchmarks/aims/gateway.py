"""One client that streams documents from a source in memory through the gateway."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.aims.rounds import Aim, Figures, Options
from tests.benchmarks.common import usage
from tests.benchmarks.streams import measure as streamed
from tests.gateway.system import running

AIMS = (
    Aim("gateway stream from memory", "lines/CPU-s", "lines/CPU-s", bound=50_000, least=True),
    Aim("gateway stream from memory, by the clock", "lines/s", "lines/s", bound=50_000, least=True),
)


class GatewayStream:
    """A gateway of its own; the first stream of all is not measured."""

    aims = AIMS

    @contextmanager
    def measuring(self, folder: Path, options: Options) -> Iterator[Callable[[int], Figures]]:
        """Start the gateway."""
        count = options.documents
        with running(folder, GATEWAY_STREAMS="1000", GATEWAY_STREAMS_PER_USER="1000") as server:
            asyncio.run(streamed(server, 1, 1000))

            def once(_: int) -> Figures:
                before, _peak = usage(server.popen.pid)
                _firsts, lines, wall = asyncio.run(streamed(server, 1, count))
                after, _peak = usage(server.popen.pid)
                return {"lines/CPU-s": lines / (after - before), "lines/s": lines / wall}

            yield once
