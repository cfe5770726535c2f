"""Limits on connections: how many may be open, of all clients and of one address. Pure.

A client without a token can open connections, and can keep them open by sending nothing, or a byte a second.
So at a limit, the connection that has waited longest for its client is closed in favour of the new one.
A connection with a complete request is never closed for another one.
"""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shardline.gateway.problems import Problem

_IPV6_PREFIX = 64
_MAX_CHARS = 64
_PROXY = "a trusted proxy"


class Connection(Protocol):
    """A connection, as the guard sees it."""

    def evict(self) -> None:
        """Close the connection at once: it waits for its client, and another one needs its place."""


def client_group(address: str) -> str:
    """Return the address under which a client is counted: IPv4, or the network /64 of IPv6.

    A client with one IPv6 address commonly has all addresses of its network.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        # What a proxy wrote. It is a key of tables, so it may not be long.
        return address[:_MAX_CHARS]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))


@dataclass(frozen=True, slots=True)
class ConnectionPolicy:
    """The limits.

    Attributes:
        total: connections at once.
        per_address: connections of one address at once.
        header_seconds: the time in which a client must send the head of a request.
        body_seconds: the time in which it must send the body.
        drain_seconds: the time in which it must read some of the rest of a complete response.
        unread_seconds: the time after which TCP gives up a client that reads nothing.
        proxies: addresses and networks of trusted proxies, which are not counted as one address, except on
            loopback.
    """

    total: int
    per_address: int
    header_seconds: float
    body_seconds: float
    drain_seconds: float = 30.0
    unread_seconds: float = 150.0
    proxies: Sequence[str] = ()


@dataclass(slots=True)
class ConnectionGuard:
    """Knows the open connections, and which of them wait for their client.

    `report` is called for each connection that was closed or refused, with the reason.
    """

    policy: ConnectionPolicy
    report: Callable[[str], None] = lambda _: None
    _open: dict[str, int] = field(default_factory=dict)
    _waiting: dict[Connection, str] = field(default_factory=dict)
    _count: int = 0

    def group(self, address: str) -> str:
        """Return the name under which the connections of an address are counted."""
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return client_group(address)
        if not found.is_loopback and any(
            found in ipaddress.ip_network(proxy) for proxy in self.policy.proxies
        ):
            return _PROXY
        return client_group(address)

    @property
    def open(self) -> int:
        """Number of open connections."""
        return self._count

    def admit(self, group: str) -> Problem | None:
        """Make room for a connection. Returns why there is none: 429 for this address, 503 for all."""
        full = group != _PROXY and self._open.get(group, 0) >= self.policy.per_address
        if full and not self._evict(group):
            self.report("too many of one address")
            detail = f"{self.policy.per_address} connections of this address are open already"
            return Problem(429, detail, headers={"Retry-After": "1"})
        if self._count >= self.policy.total and not self._evict(None):
            self.report("too many")
            detail = f"{self.policy.total} connections are open, which is the limit of this gateway"
            return Problem(503, detail, headers={"Retry-After": "1"})
        return None

    def relieve(self) -> None:
        """Close the connection that has waited longest for its client, if any waits."""
        self._evict(None)

    def opened(self, group: str) -> None:
        """A connection was opened."""
        self._open[group] = self._open.get(group, 0) + 1
        self._count += 1

    def closed(self, connection: Connection, group: str) -> None:
        """A connection was closed."""
        self.works(connection)
        self._count -= 1
        self._open[group] -= 1
        if not self._open[group]:
            del self._open[group]

    def waits(self, connection: Connection, group: str) -> None:
        """A connection waits for its client from now on; it may have waited before."""
        self._waiting.setdefault(connection, group)

    def works(self, connection: Connection) -> None:
        """A connection waits no longer: its request is complete."""
        self._waiting.pop(connection, None)

    def _evict(self, group: str | None) -> bool:
        for connection, its_group in self._waiting.items():
            if group in (None, its_group):
                del self._waiting[connection]
                self.report("evicted")
                connection.evict()
                return True
        return False
