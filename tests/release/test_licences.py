"""Every shipped dependency has an allowed licence, and the bill of materials lists all of them."""

import re
from email.message import Message

import pytest

from deploy.release.licences import ALLOWED, ROOT, STATED, Licence, declared, licences
from deploy.release.sbom import bill
from shardline_common import __version__


def test_every_licence_is_allowed() -> None:
    found = licences()
    assert len(found) > 50
    assert {"aiokafka", "pyarrow", "onnxruntime"} <= {one.package for one in found}
    assert not {"pytest", "chromadb"} & {one.package for one in found}
    assert [one for one in found if not one.allowed] == []


def test_every_allowed_or_stated_licence_is_used() -> None:
    found = licences()
    used = " ".join(one.expression or "" for one in found)
    assert [name for name in ALLOWED if name not in re.split(r"[ ()]+", used)] == []
    assert set(STATED) <= {one.package for one in found}


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(GPL-3.0-only OR Apache-2.0) AND MIT", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        (None, False),
    ],
)
def test_licence_expressions_are_evaluated(expression: str | None, allowed: bool) -> None:
    assert Licence("x", "1", expression).allowed is allowed


def said(*classifiers: str, **fields: str) -> Message:
    message = Message()
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    for classifier in classifiers:
        message["Classifier"] = "License :: OSI Approved :: " + classifier
    return message


def test_only_unambiguous_metadata_declare_a_licence() -> None:
    assert declared(said(License_Expression="MIT AND ISC")) == "MIT AND ISC"
    assert declared(said(License="Apache 2.0")) == "Apache-2.0"
    assert declared(said("MIT License", License="see the file")) == "MIT"
    assert declared(said("MIT License", "Apache Software License")) is None
    assert declared(said("BSD License", License="BSD")) is None
    assert declared(said()) is None


def test_the_sbom_lists_every_package_with_its_licence() -> None:
    found = bill()
    assert (found["bomFormat"], found["metadata"]["component"]["version"]) == ("CycloneDX", __version__)
    components = {(one["name"], one["version"]): one for one in found["components"]}
    for one in licences():
        component = components[one.package, one.version]
        assert component["purl"] == f"pkg:pypi/{one.package}@{one.version}"
        assert component["licenses"] == [{"expression": one.expression}]
    lock = (ROOT / "uv.lock").read_text(encoding="utf-8")
    assert all(f'name = "{name}"\nversion = "{version}"' in lock for name, version in components)
