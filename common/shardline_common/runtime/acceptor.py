"""Accepts the connections of a listening socket, one for each turn of the event loop."""

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.1
_QUIET_SECONDS = 60.0

MakeProtocol = Callable[[str], asyncio.Protocol]
"""Makes the protocol of a new connection from the address of its client."""


async def accept_connections(
    listener: socket.socket, make_protocol: MakeProtocol, relieve: Callable[[], None]
) -> None:
    """Accept connections until cancelled. The listener stays open.

    asyncio's own server is not used: when no file descriptor is free, it logs a stack trace for each failed
    accept, thousands in a second, and blocks the event loop with them (python/cpython#109564).

    Args:
        listener: a socket that listens.
        make_protocol: makes the protocol of a connection.
        relieve: called when no file descriptor is free; closes a connection that can be spared.
    """
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    logged_at = -_QUIET_SECONDS
    while True:
        try:
            connection, address = await loop.sock_accept(listener)
        except OSError as error:
            if loop.time() - logged_at >= _QUIET_SECONDS:
                logged_at = loop.time()
                _log.error("connections cannot be accepted: %s; try: raise the limit of open files", error)
            relieve()
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        try:
            await loop.connect_accepted_socket(partial(make_protocol, address[0]), connection)
        except OSError:
            # The client reset the connection meanwhile.
            connection.close()
