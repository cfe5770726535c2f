"""Kafka and SeaweedFS on this machine, without Docker: `python -m deploy.dev.services up|down|status`.

Everything lives in one state folder (`.run`, or `--state`): data, logs, and per service the process
and the ports. `up` prints the environment that the program and the tests read, and writes it to
`<state>/env`. If the environment has an address already, that service is used and none is started.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.dev.kafka import Kafka
from deploy.dev.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, Seaweed
from deploy.dev.service import ROOT, Service, ServiceError

_VARIABLES = (
    "KAFKA_BOOTSTRAP_SERVERS",
    "S3_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "S3_BUCKET",
)


class Services:
    """Both services of a state folder. An address in the environment replaces a service."""

    def __init__(self, state: Path, given: Mapping[str, str]) -> None:
        self._state = state
        self.kafka = Kafka(state / "kafka")
        self.seaweed = Seaweed(state / "seaweed")
        own = self._own_env()
        self._given = {name: value for name, value in given.items() if value and own.get(name) != value}

    @property
    def started_here(self) -> list[Service]:
        """The services that no address in the environment replaces."""
        kafka: list[Service] = [] if "KAFKA_BOOTSTRAP_SERVERS" in self._given else [self.kafka]
        return kafka if "S3_ENDPOINT_URL" in self._given else [*kafka, self.seaweed]

    def up(self) -> dict[str, str]:
        """Start the services that do not run. Returns the environment, and writes it to `<state>/env`."""
        for service in self.started_here:
            service.start()
        env = self.env()
        if endpoint := env.get("S3_ENDPOINT_URL"):
            # The name that other programs read.
            env["AWS_ENDPOINT_URL_S3"] = endpoint
        self._state.mkdir(parents=True, exist_ok=True)
        (self._state / "env").write_text("".join(f"{name}={value}\n" for name, value in env.items()))
        return env

    def env(self) -> dict[str, str]:
        """The environment with the addresses of all services."""
        return self._own_env() | {name: self._given[name] for name in _VARIABLES if name in self._given}

    def down(self) -> None:
        """Stop the services that were started here."""
        for service in (self.kafka, self.seaweed):
            service.stop()
        (self._state / "env").unlink(missing_ok=True)

    def _own_env(self) -> dict[str, str]:
        env = {"KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap} if self.kafka.ports else {}
        if self.seaweed.ports:
            values = (self.seaweed.endpoint, ACCESS_KEY, SECRET_KEY, BUCKET)
            env |= dict(zip(_VARIABLES[1:], values, strict=True))
        return env


def _perform(command: str, services: Services) -> int:
    if command == "up":
        sys.stdout.writelines(f"{name}={value}\n" for name, value in services.up().items())
        return 0
    if command == "down":
        services.down()
        return 0
    running = {service.name: service.running for service in services.started_here}
    sys.stdout.writelines(f"{name}: {'runs' if runs else 'does not run'}\n" for name, runs in running.items())
    return 0 if all(running.values()) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Kafka and SeaweedFS for development, without Docker.")
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument(
        "--state", type=Path, default=ROOT / ".run", help="folder of data, logs and addresses"
    )
    options = parser.parse_args(arguments)
    try:
        return _perform(options.command, Services(options.state, os.environ))
    except ServiceError as error:
        sys.stderr.write(f"{error}\n")
        return 3


if __name__ == "__main__":
    sys.exit(main())
