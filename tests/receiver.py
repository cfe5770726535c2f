"""A receiver of webhooks: a real HTTP server that notes what it is told, and answers as a test says."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition
from typing import Any

from standardwebhooks.webhooks import Webhook

from tests.listening import QuietHandler, listening

Answer = tuple[int, Mapping[str, str]] | None
SECRET = "whsec_" + "c2hhcmRsaW5lLXRlc3RzLXNlY3JldC0zMi1ieXRlcyE="


@dataclass(frozen=True)
class Told:
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
    """What was told. `answers` are given in turn, then 200; (status, headers), and None holds the line."""

    answers: list[Answer] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    heard: Condition = field(default_factory=Condition)
    port: int = 0

    @property
    def url(self) -> str:
        """Where it is; the path is a secret of its own."""
        return f"http://127.0.0.1:{self.port}/hidden-path"

    @property
    def env(self) -> dict[str, str]:
        """The settings of a process that tells it."""
        return {"SHARDLINE_WEBHOOK_URL": self.url, "SHARDLINE_WEBHOOK_SECRET": SECRET}

    def until_told(self, message_id: str, times: int = 1, seconds: float = 180.0) -> list[Told]:
        """The posts of a message, once there are so many."""
        deadline = time.monotonic() + seconds
        with self.heard:
            while len(found := [one for one in self.told if one.id == message_id]) < times:
                left = deadline - time.monotonic()
                assert left > 0, f"{message_id} was told {len(found)} times, not {times}: {self.told}"
                self.heard.wait(left)
            return found


@contextmanager
def receiving(*answers: Answer, port: int = 0) -> Iterator[Hook]:
    """A receiver for as long as the context lasts."""
    hook = Hook(list(answers))

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with hook.heard:
                headers = {name.lower(): value for name, value in self.headers.items()}
                hook.told.append(Told(headers, body))
                answer = hook.answers.pop(0) if hook.answers else (200, {})
                hook.heard.notify_all()
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
