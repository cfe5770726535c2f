"""The two servers that most tests share: one without tokens, one that requires tokens."""

from collections.abc import Iterator

import pytest

from tests.gateway.realm import AUDIENCE, REALM, Realm, running_realm
from tests.gateway.system import Server, running


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gateway that requires no token, with a producer and a worker."""
    folder = tmp_path_factory.mktemp("gateway")
    limits = {"GATEWAY_REQUESTS_PER_MINUTE": "1000000", "GATEWAY_STREAMS_PER_USER": "20"}
    with running(folder, **limits) as server:
        yield server


@pytest.fixture(scope="session")
def realm() -> Iterator[Realm]:
    with running_realm() as found:
        yield found


def guarded(realm: Realm, **env: str) -> dict[str, str]:
    """The settings of a gateway that requires tokens of the realm."""
    return {
        "CLARA_SECURITY_MODE": "production",
        "KEYCLOAK_URL": realm.url,
        "KEYCLOAK_REALM": REALM,
        "KEYCLOAK_CLIENT_ID": AUDIENCE,
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_REQUESTS_PER_MINUTE": "100000",
    } | env


@pytest.fixture(scope="session")
def secure(realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("secure"), **guarded(realm)) as server:
        yield server
