"""A real Prometheus for tests: the project's configuration with other targets and a shorter interval."""

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
import yaml

from deploy.dev.service import HOST, ROOT, Service, ServiceError, http_status

_CONFIGURATION = ROOT / "deploy" / "prometheus" / "prometheus.yml"
_SECONDS = 120.0


class Prometheus(Service):
    """Scrapes, and evaluates rules.yml, once a second. `targets`: name of a scrape job → ports."""

    name = "Prometheus"
    port_names = ("web",)

    def __init__(self, folder: Path, targets: Mapping[str, Sequence[int]]) -> None:
        super().__init__(folder)
        self._targets = targets

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.ports['web']}"

    def prepare(self) -> None:
        """Find the program."""
        _program()

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The command line; the configuration is written beside the data."""
        config = yaml.safe_load(_CONFIGURATION.read_text(encoding="utf-8"))
        config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(_CONFIGURATION.parent / name) for name in config["rule_files"]]
        known = {part["job_name"] for part in config["scrape_configs"]}
        assert set(self._targets) <= known
        config["scrape_configs"] = [
            {"job_name": name, "static_configs": [{"targets": [f"{HOST}:{port}" for port in ports]}]}
            for name, ports in self._targets.items()
        ]
        path = self.folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        options = [f"--config.file={path}", f"--storage.tsdb.path={self.folder / 'data'}"]
        return [_program(), *options, f"--web.listen-address={HOST}:{ports['web']}", "--log.level=warn"]

    def environment(self) -> dict[str, str]:
        """One thread: the processes that it watches need the machine more."""
        return dict(os.environ) | {"GOMAXPROCS": "1"}

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether it takes queries."""
        return http_status(f"http://{HOST}:{ports['web']}/-/ready") == 200

    def series(self, query: str, start: float, end: float) -> list[dict[str, Any]]:
        """What a query gives between two moments, second by second; the last is at `end` or just after it."""
        answer = requests.post(
            f"{self.url}/api/v1/query_range",
            data={"query": query, "start": start, "end": end + 1, "step": "1"},
            timeout=30,
        )
        body = answer.json()
        assert body["status"] == "success", f"{query}: {body}"
        found: list[dict[str, Any]] = body["data"]["result"]
        return found

    def now(self, query: str) -> list[dict[str, Any]]:
        """What a query gives now."""
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=30).json()
        assert answer["status"] == "success", f"{query}: {answer}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def until(self, query: str, holds: Callable[[list[dict[str, Any]]], bool] = bool) -> list[dict[str, Any]]:
        """What a query gives, once that is as wanted."""
        deadline = time.monotonic() + _SECONDS
        while not holds(found := self.now(query)):
            assert time.monotonic() < deadline, f"{query} gives {found}"
            time.sleep(0.2)
        return found


def _program() -> str:
    program = shutil.which("prometheus")
    if program is None:
        raise ServiceError("Prometheus is not there; on Debian: apt-get install prometheus")
    return program
