"""Where Neo4j is: apart from the driver, which takes long to import and is imported only where it is used."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Neo4jOptions:
    """Where the graph is. `timeout` is for connecting, `query_timeout` for one whole query, in seconds."""

    uri: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    ca_file: str | None = None
    timeout: float = 30.0
    query_timeout: float = 600.0
    attempts: int = 3
    include_archived: bool = False

    @property
    def place(self) -> str:
        """For messages."""
        return f"Neo4j at {self.uri}" + (f", database {self.database}" if self.database else "")
