"""The bill of materials: uv's export of the lock as CycloneDX, with Shardline's version and all licences."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

from deploy.release.licences import EXPORT, ROOT, UV, expression_of
from shardline_common import __version__


def bill() -> dict[str, Any]:
    """The bill of all packages that the wheel with all extras may install, on any platform."""
    command = [str(UV), *EXPORT, "--format", "cyclonedx1.5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)  # noqa: S603 - uv
    found: dict[str, Any] = orjson.loads(done.stdout)
    found["metadata"]["component"] |= {"type": "application", "version": __version__}
    for component in found["components"]:
        if (expression := expression_of(component["name"])) is not None:
            component["licenses"] = [{"expression": expression}]
    return found


def main() -> None:
    """Write the bill to the file that the first argument names."""
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(bill(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
