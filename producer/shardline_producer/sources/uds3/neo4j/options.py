"""The options of Neo4j. They are not in ranker.py, because it imports the driver, which is slow."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Neo4jOptions:
    """The address of the graph. `timeout` limits connecting, `query_timeout` a whole query, in seconds."""

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
    def address(self) -> str:
        """The database, for messages."""
        return f"Neo4j at {self.uri}" + (f", database {self.database}" if self.database else "")
