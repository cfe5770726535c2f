"""A receiver of webhooks: an HTTP server that records deliveries and responds as a test says."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition
from typing import Any

from standardwebhooks.webhooks import Webhook

from tests.support.listening import QuietHandler, listening

Answer = tuple[int, Mapping[str, str]] | None
SECRET = "whsec_" + "c2hhcmRsaW5lLXRlc3RzLXNlY3JldC0zMi1ieXRlcyE="


@dataclass(frozen=True)
class Delivery:
    """One post."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The message's id."""
        return self.headers["webhook-id"]

    def verified(self, secret: str = SECRET) -> dict[str, Any]:
        """The body, once the reference library has accepted its signature and its time."""
        value = Webhook(secret).verify(self.body, dict(self.headers))
        assert value == json.loads(self.body)
        return dict(value)


@dataclass
class Hook:
    """The deliveries. `answers` are sent in turn, then 200: (status, headers), or None to send nothing."""

    answers: list[Answer] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    arrived: Condition = field(default_factory=Condition)
    port: int = 0

    @property
    def url(self) -> str:
        """Its address; the path is a secret too."""
        return f"http://127.0.0.1:{self.port}/hidden-path"

    @property
    def env(self) -> dict[str, str]:
        """The settings of a process that notifies it."""
        return {"SHARDLINE_WEBHOOK_URL": self.url, "SHARDLINE_WEBHOOK_SECRET": SECRET}

    def until_delivered(self, message_id: str, times: int = 1, seconds: float = 180.0) -> list[Delivery]:
        """The posts of a message, once there are so many."""
        deadline = time.monotonic() + seconds
        with self.arrived:
            while len(found := [one for one in self.deliveries if one.id == message_id]) < times:
                left = deadline - time.monotonic()
                assert left > 0, f"{message_id} arrived {len(found)} times, not {times}: {self.deliveries}"
                self.arrived.wait(left)
            return found


@contextmanager
def receiving(*answers: Answer, port: int = 0) -> Iterator[Hook]:
    """A receiver for as long as the context lasts."""
    hook = Hook(list(answers))

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with hook.arrived:
                headers = {name.lower(): value for name, value in self.headers.items()}
                hook.deliveries.append(Delivery(headers, body))
                answer = hook.answers.pop(0) if hook.answers else (200, {})
                hook.arrived.notify_all()
            if answer is None:
                # Until the sender has enough of it.
                self.rfile.read(1)
                return
            self.send_response(answer[0])
            for name, value in {"content-length": "0", **answer[1]}.items():
                self.send_header(name, value)
            self.end_headers()

    with listening(Handler, port) as hook.port:
        yield hook
