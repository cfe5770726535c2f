"""ChromaDB, Neo4j and CouchDB for the tests: those the environment names, else containers, else processes."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import neo4j
import psutil
import pytest

from deploy.dev.stores import (
    NEO4J_FIRST_PASSWORD,
    NEO4J_USER,
    PASSWORD,
    USER,
    Chroma,
    Couch,
    Neo4j,
)
from shardline_producer.sources.http_store import HttpStoreOptions
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from tests.services import docker_answers, server_folder, service_started

CHROMA_IMAGE = "chromadb/chroma:1.5.9"
NEO4J_IMAGE = "neo4j:5.26.12"
COUCH_IMAGE = "couchdb:3.4.2"


@dataclass(frozen=True)
class Address:
    """The HTTP address of a store."""

    url: str
    user: str = ""
    password: str = ""

    @property
    def port(self) -> int:
        """The port."""
        return urlsplit(self.url).port or 80


@pytest.fixture(scope="session")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """The ChromaDB that all tests share. Each test uses a collection of its own."""
    if host := os.environ.get("CHROMA_HOST"):
        yield Address(f"http://{host}:{os.environ.get('CHROMA_PORT', '8000')}")
        return
    with _container(CHROMA_IMAGE, 8000, {}) if docker_answers() else _no_container() as url:
        if url:
            yield Address(url)
            return
        service = Chroma(server_folder(tmp_path_factory, "chroma"))
        with service_started(service):
            yield Address(f"http://127.0.0.1:{service.ports['http']}")


@pytest.fixture(scope="session")
def couch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """The CouchDB that all tests share. Each test uses a database of its own."""
    if url := os.environ.get("COUCH_URL"):
        yield Address(url, os.environ.get("COUCH_USER", ""), os.environ.get("COUCH_PASSWORD", ""))
        return
    names = {"COUCHDB_USER": USER, "COUCHDB_PASSWORD": PASSWORD}
    with _container(COUCH_IMAGE, 5984, names) if docker_answers() else _no_container() as found:
        if found:
            yield Address(found, USER, PASSWORD)
            return
        service = Couch(server_folder(tmp_path_factory, "couch"))
        with service_started(service):
            yield Address(service.url, USER, PASSWORD)


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neo4jOptions]:
    """The Neo4j that all tests share. Tests that write to it use `emptied`."""
    if uri := os.environ.get("NEO4J_URI"):
        user, password = os.environ.get("NEO4J_USER", NEO4J_USER), os.environ.get("NEO4J_PASSWORD", "")
        options = Neo4jOptions(uri, user, password, os.environ.get("NEO4J_DATABASE"))
        if cypher(options, "MATCH (n) RETURN count(n) AS nodes")[0]["nodes"]:
            pytest.fail(f"NEO4J_URI={uri} holds nodes; the tests need an empty database", pytrace=False)
        yield options
        return
    names = {"NEO4J_AUTH": f"{NEO4J_USER}/{PASSWORD}"}
    with _container(NEO4J_IMAGE, 7687, names) if docker_answers() else _no_container() as url:
        if url:
            options = Neo4jOptions(url.replace("http", "bolt"), NEO4J_USER, PASSWORD)
            _await_login(options)
            yield options
            return
        service = Neo4j(server_folder(tmp_path_factory, "neo4j"))
        with service_started(service):
            change_password(service.uri)
            yield Neo4jOptions(service.uri, NEO4J_USER, PASSWORD)


@pytest.fixture
def emptied(graph: Neo4jOptions) -> Iterator[Neo4jOptions]:
    """The shared Neo4j, without nodes, constraints and full-text indexes before and after the test."""
    _empty(graph)
    yield graph
    _empty(graph)


def cypher(options: Neo4jOptions, statement: str, **parameters: Any) -> list[dict[str, Any]]:
    """Run one statement. Returns its rows."""
    return asyncio.run(cypher_async(options, statement, **parameters))


async def cypher_async(options: Neo4jOptions, statement: Any, **parameters: Any) -> list[dict[str, Any]]:
    """Run one statement. Returns its rows."""
    auth = (options.user or "", options.password or "")
    async with (
        neo4j.AsyncGraphDatabase.driver(options.uri, auth=auth) as driver,
        driver.session(database=options.database) as session,
    ):
        result = await session.run(statement, parameters)
        return [record.data() async for record in result]


def _empty(options: Neo4jOptions) -> None:
    cypher(options, "MATCH (n) DETACH DELETE n")
    for row in cypher(options, "SHOW CONSTRAINTS YIELD name"):
        cypher(options, f"DROP CONSTRAINT `{row['name']}`")
    for row in cypher(options, "SHOW FULLTEXT INDEXES YIELD name"):
        cypher(options, f"DROP INDEX `{row['name']}`")


def change_password(uri: str) -> None:
    """Replace the first password of a new Neo4j, which refuses all other statements until then."""
    fresh = Neo4jOptions(uri, NEO4J_USER, NEO4J_FIRST_PASSWORD, "system")
    statement = "ALTER CURRENT USER SET PASSWORD FROM $old TO $new"
    _until_it_works(lambda: cypher(fresh, statement, old=NEO4J_FIRST_PASSWORD, new=PASSWORD))


def _await_login(options: Neo4jOptions) -> None:
    _until_it_works(lambda: cypher(options, "RETURN 1"))


def _until_it_works(call: Any) -> None:
    # Bolt accepts connections before the databases are online.
    deadline = time.monotonic() + 60.0
    while True:
        try:
            call()
        except (OSError, neo4j.exceptions.DriverError, neo4j.exceptions.Neo4jError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


@contextmanager
def _container(image: str, port: int, environment: dict[str, str]) -> Iterator[str | None]:
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(image).with_exposed_ports(port)
    for name, value in environment.items():
        container = container.with_env(name, value)
    with container:
        url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(port)}"
        _until_it_works(lambda: _answers(url))
        yield url


def _no_container() -> AbstractContextManager[str | None]:
    return nullcontext(None)


def _answers(url: str) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=2.0) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        if not connection.recv(1):
            raise OSError("it closed the connection")


def connections_to(port: int) -> int:
    """The number of open connections of this process to a port of this machine."""
    own = psutil.Process().net_connections(kind="tcp")
    return sum(
        one.status == psutil.CONN_ESTABLISHED and bool(one.raddr) and one.raddr.port == port for one in own
    )


def http_options(address: Address, **changes: Any) -> HttpStoreOptions:
    """Client options for a store of the tests, with short time-outs and few attempts."""
    values: dict[str, Any] = {"name": "the store", "url": address.url, "timeout": 20.0, "attempts": 2}
    return HttpStoreOptions(**(values | changes))
