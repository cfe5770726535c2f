"""moto as a second S3 server: it knows versions and object lock, and requires checksums as AWS does."""

import sys
from collections.abc import Iterator, Mapping, Sequence

import pytest

from deploy.dev.service import HOST, Service, http_status
from tests.services import S3, server_folder, service_started


class Moto(Service):
    """moto's server in a process of its own. It keeps everything in memory, and checks no signature."""

    name = "moto"
    port_names: Sequence[str] = ("http",)

    @property
    def endpoint(self) -> str:
        """The address for S3_ENDPOINT_URL."""
        return f"http://{HOST}:{self.ports['http']}"

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(ports["http"])]

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether the server answers."""
        return http_status(f"http://{HOST}:{ports['http']}/moto-api/") == 200


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """The moto that all tests share. Each test uses a bucket of its own, which it creates."""
    server = Moto(server_folder(tmp_path_factory, "moto"))
    with service_started(server):
        yield S3(server.endpoint, "none", "key", "secret")
