"""How PostgreSQL is reached."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """The address of the database, the user, and the time-out of a statement in seconds.

    `search_config`: the text search configuration of all tables; None: that which fills their vectors.
    """

    host: str
    port: int
    user: str | None
    password: str | None = field(repr=False)
    database: str
    schema: str = "public"
    table: str | None = None
    sslmode: str = "prefer"
    sslrootcert: str | None = None
    statement_seconds: float = 300.0
    search_config: str | None = None

    @property
    def address(self) -> str:
        """The database, for messages."""
        return f"PostgreSQL {self.host}:{self.port}/{self.database}"
