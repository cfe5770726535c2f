"""One server that the tests without wishes of their own share."""

from collections.abc import Iterator

import pytest

from tests.gateway.system import Server, running


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gateway that asks for no token, with a producer and a worker."""
    folder = tmp_path_factory.mktemp("gateway")
    many = {"GATEWAY_REQUESTS_PER_MINUTE": "1000000", "GATEWAY_STREAMS_PER_USER": "20"}
    with running(folder, **many) as server:
        yield server
