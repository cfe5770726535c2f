"""Small HTTP servers in the test's process."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class QuietHandler(BaseHTTPRequestHandler):
    """A request handler that logs no requests."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def listening(handler: type[QuietHandler], port: int = 0) -> Iterator[int]:
    """Serve on this port, or on a free one; gives the port."""
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
