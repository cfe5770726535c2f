"""The two servers that most tests share: one without tokens, one that requires tokens."""

from collections.abc import Iterator

import pytest
from schemathesis.pytest.plugin import SchemathesisFunction

from tests.gateway.realm import AUDIENCE, REALM, Realm, running_realm
from tests.gateway.system import Server, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each item of a Schemathesis test its own node id.

    Schemathesis puts the operation into the name of an item, but pytest from 9.2 on makes the node id from
    the name of the function. The items then share one node id, and pytest-xdist runs only one of them.
    """
    for item in items:
        if isinstance(item, SchemathesisFunction) and item.parent is not None:
            item._id = item.parent.id.child(item.name)
            assert item.name in item.nodeid


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
