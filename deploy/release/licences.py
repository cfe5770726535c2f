"""The check that every locked runtime dependency, extras included, has an allowed licence."""

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from license_expression import ExpressionError, get_spdx_licensing

ROOT = Path(__file__).parent.parent.parent
UV = Path(sys.executable).parent / "uv"
EXPORT = ("export", "--quiet", "--frozen", "--no-dev", "--all-extras", "--no-emit-project")
_PERMISSIVE = "use, change and pass on, with the notice kept"
ALLOWED: Mapping[str, str] = {
    "0BSD": _PERMISSIVE,
    "Apache-2.0": _PERMISSIVE,
    "BSD-2-Clause": _PERMISSIVE,
    "BSD-3-Clause": _PERMISSIVE,
    "ISC": _PERMISSIVE,
    "MIT": _PERMISSIVE,
    "MIT-0": _PERMISSIVE,
    "PSF-2.0": _PERMISSIVE,
    "Python-2.0": _PERMISSIVE,
    "Zlib": _PERMISSIVE,
    "CC0-1.0": "no condition; of parts of numpy",
    "MPL-2.0": "applies to changed files, and orjson and tqdm are used unchanged",
}
# The licences that the metadata does not name, from the licence file of the package.
STATED: Mapping[str, str] = {
    "colorama": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "wrapt": "BSD-2-Clause",
}
_TEXTS: Mapping[str, str] = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "ISC License": "ISC",
    "MIT License": "MIT",
}
_CLASSIFIERS: Mapping[str, str] = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
}


@dataclass(frozen=True, slots=True)
class Licence:
    """A package of the lock, and its licence as an SPDX expression; None when it is not known."""

    package: str
    version: str
    expression: str | None

    @property
    def allowed(self) -> bool:
        """Whether allowed licences satisfy the expression."""
        if self.expression is None:
            return False
        return _is_allowed(_spdx().parse(self.expression, validate=True))


def licences() -> list[Licence]:
    """The licences of all locked runtime dependencies, on any platform.

    A package for another platform or Python is not installed here: its licence must be in STATED.
    """
    command = [str(UV), *EXPORT, "--no-hashes", "--no-header", "--no-annotate"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603
    # Shardline does not run in a browser.
    lines = [line for line in listed.splitlines() if "emscripten" not in line]
    found = dict.fromkeys(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", "\n".join(lines), re.MULTILINE))
    return [Licence(name, version, expression_of(name)) for name, version in found]


def expression_of(package: str) -> str | None:
    """The licence that the installed package's metadata names, or STATED."""
    try:
        package_metadata = metadata(package)
    except PackageNotFoundError:
        return STATED.get(package)
    return declared(package_metadata) or STATED.get(package)


def declared(package_metadata: Any) -> str | None:
    """The licence that the metadata names, as an SPDX expression; None when it is missing or ambiguous."""
    text = str(package_metadata.get("License-Expression") or package_metadata.get("License") or "")
    text = _TEXTS.get(text, text)
    if text and _is_expression(text):
        return text
    classified = {
        _CLASSIFIERS.get(one) for one in package_metadata.get_all("Classifier", []) if "License ::" in one
    }
    return classified.pop() if len(classified) == 1 else None


def _is_expression(text: str) -> bool:
    try:
        _spdx().parse(text, validate=True)
    except ExpressionError:
        return False
    return True


@cache
def _spdx() -> Any:
    return get_spdx_licensing()


def _is_allowed(node: Any) -> bool:
    kind = type(node).__name__
    if kind in ("AND", "OR"):
        return (all if kind == "AND" else any)(_is_allowed(part) for part in node.args)
    return str(node) in ALLOWED


def main() -> None:
    """Print the table. Exit with 1 when a licence is not allowed or not known."""
    found = licences()
    for one in found:
        mark = "" if one.allowed else "  <- not allowed"
        sys.stdout.write(f"{one.package:24} {one.version:12} {one.expression or 'unknown'}{mark}\n")
    if not all(one.allowed for one in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
