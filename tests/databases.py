"""PostgreSQL for the tests: the server the environment names, else a container, else a process."""

import os
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.dev.postgres import PASSWORD, USER, PostgresServer
from deploy.dev.service import HOST, ServiceError
from shardline_common.settings.load import Settings
from shardline_producer.sources.uds3.postgres.connection import Postgres
from shardline_producer.sources.uds3.postgres.options import PostgresOptions
from tests.services import docker_answers, refuse_servers

POSTGRES_IMAGE = "postgres:15.14"


@dataclass(frozen=True)
class Database:
    """A database on the server that all tests share, with a user who may do anything."""

    host: str
    port: int
    user: str
    password: str
    name: str = "postgres"

    @property
    def env(self) -> dict[str, str]:
        """The environment of a process that reads it."""
        return {
            "POSTGRES_HOST": self.host,
            "POSTGRES_PORT": str(self.port),
            "POSTGRES_USER": self.user,
            "POSTGRES_PASSWORD": self.password,
            "POSTGRES_DATABASE": self.name,
        }

    @property
    def settings(self) -> Settings:
        """The settings of a process that reads it."""
        return Settings.model_validate({name.lower(): value for name, value in self.env.items()})

    @property
    def options(self) -> PostgresOptions:
        """The options of the adapter."""
        return PostgresOptions(self.host, self.port, self.user, self.password, self.name, sslmode="disable")

    @property
    def postgres(self) -> Postgres:
        """The adapter."""
        return Postgres(self.options)

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Any]:
        """Open a connection of the administrator."""
        connection = await asyncpg.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, database=self.name
        )
        try:
            yield connection
        finally:
            await connection.close()

    async def execute(self, *statements: str) -> None:
        """Run statements."""
        async with self.admin() as connection:
            for statement in statements:
                await connection.execute(statement)

    async def fetch(self, query: str, *values: object) -> list[Any]:
        """Run a query. Returns its rows."""
        async with self.admin() as connection:
            return list(await connection.fetch(query, *values))

    async def load(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Copy rows into a table."""
        async with self.admin() as connection:
            await connection.copy_records_to_table(table, columns=list(columns), records=rows)

    async def readers(self) -> int:
        """The number of connections that Shardline has open."""
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'shardline'"
        )
        return int((await self.fetch(query))[0][0])


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The server that all tests share. Each test uses a database of its own: the fixture `database`."""
    with _server(tmp_path_factory.mktemp("postgres")) as found:
        yield found


@pytest.fixture
async def database(postgres_server: Database) -> AsyncIterator[Database]:
    """An empty database for one test."""
    async with own_database(postgres_server) as found:
        yield found


@asynccontextmanager
async def own_database(server: Database, provider: str = "icu") -> AsyncIterator[Database]:
    """Create an empty database. Its default collation is a dictionary's (icu) or byte order (libc)."""
    name = f"test_{secrets.token_hex(4)}"
    order = "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'" if provider == "icu" else "LOCALE_PROVIDER libc"
    await server.execute(f"CREATE DATABASE {name} TEMPLATE template0 {order} LOCALE 'C.UTF-8'")
    yield replace(server, name=name)
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _server(folder: Path) -> Iterator[Database]:
    if host := os.environ.get("POSTGRES_HOST"):
        port = int(os.environ.get("POSTGRES_PORT") or 5432)
        yield Database(
            host, port, os.environ.get("POSTGRES_USER", USER), os.environ.get("POSTGRES_PASSWORD", "")
        )
    elif docker_answers():
        with _container() as found:
            yield found
    else:
        with local_postgres(folder) as server:
            yield Database(HOST, server.ports["sql"], USER, PASSWORD)


@contextmanager
def local_postgres(folder: Path, *, tls: bool = False) -> Iterator[PostgresServer]:
    """Run a server. Its `stop` and `start` keep port and data."""
    refuse_servers()
    server = PostgresServer(folder, tls=tls)
    try:
        server.start()
        yield server
    except ServiceError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        server.stop()
        server.remove()


@contextmanager
def _container() -> Iterator[Database]:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    container = DockerContainer(POSTGRES_IMAGE).with_exposed_ports(5432)
    with container.with_env("POSTGRES_PASSWORD", PASSWORD):
        wait_for_logs(container, r"ready to accept connections[\s\S]*ready to accept connections", timeout=60)
        host = container.get_container_host_ip()
        yield Database(host, int(container.get_exposed_port(5432)), USER, PASSWORD)
