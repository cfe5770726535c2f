"""Starting a service for development, and the ports that it is given."""

import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.dev.service import HOST, PortTaken, Service, free_ports

_SERVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    server.accept()[0].close()
"""


class RacedService(Service):
    """Listens on its port. Somebody else takes the first `races` ports after they were chosen."""

    name = "the raced service"
    port_names = ("main",)

    def __init__(self, folder: Path, races: int) -> None:
        super().__init__(folder)
        self.others: list[socket.socket] = []
        self._races = races

    def command(self, ports: Mapping[str, int]) -> list[str]:
        if len(self.others) < self._races:
            self.others.append(socket.create_server((HOST, ports["main"])))
        return [sys.executable, "-c", _SERVER, str(ports["main"])]

    def answers(self, ports: Mapping[str, int]) -> bool:
        taken = {other.getsockname()[1] for other in self.others}
        try:
            socket.create_connection((HOST, ports["main"])).close()
        except OSError:
            return False
        return ports["main"] not in taken


@pytest.fixture
def raced(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RacedService]:
    service = RacedService(tmp_path, request.param)
    yield service
    service.stop(kill=True)
    for other in service.others:
        other.close()


@pytest.mark.parametrize("raced", [0, 1, 2], indirect=True)
def test_a_service_whose_port_was_taken_starts_on_another(raced: RacedService) -> None:
    raced.start()
    assert raced.running
    assert raced.ports["main"] not in {other.getsockname()[1] for other in raced.others}


@pytest.mark.parametrize("raced", [3], indirect=True)
def test_a_service_gives_up_after_three_taken_ports(raced: RacedService) -> None:
    with pytest.raises(PortTaken, match="the raced service did not start"):
        raced.start()
    assert len(raced.others) == 3


def test_no_port_is_given_twice() -> None:
    ports = [free_ports(1)[0] for _ in range(200)]
    assert len(set(ports)) == 200
