"""`verify --digest` and `verify --key`, from the command line and from Python."""

import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

import shardline
from shardline import errors, sync
from shardline.services.sample import write_sample
from tests.integration.test_replace_command import Command, command

__all__ = ["command"]
JOB = {"job_id": "laws", "name": "laws", "source": {"type": "files", "paths": ["sample.jsonl"]}}
OTHER = "0" * 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets, one of them signed; the key that signed it, and another."""
    folder = tmp_path_factory.mktemp("verified")
    write_sample(folder / "sample.jsonl", 60)
    job = JOB | {"source": {"type": "files", "paths": [str(folder / "sample.jsonl")]}}
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for name, public in (("ours", key.public_key()), ("theirs", Ed25519PrivateKey.generate().public_key())):
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pem").write_bytes(pem)
    (folder / "wrong.pem").write_text("wrong")
    sync.run(job, output=folder / "signed", settings={"signing_key": private})
    sync.run(job, output=folder / "plain")
    return folder


@pytest.fixture(autouse=True)
def own_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_", "KAFKA_", "SHARDLINE_"))]:
        monkeypatch.delenv(name)


SIGNED, PLAIN = "signed/laws/laws", "plain/laws/laws"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([SIGNED, "--key", "ours.pem"], 0, "proven"),
        ([SIGNED, "--key", "theirs.pem"], 1, "no signature of this key"),
        ([PLAIN, "--key", "ours.pem"], 1, "no signature of this key"),
        ([PLAIN, "--digest", OTHER], 1, f"not the expected {OTHER}"),
        ([PLAIN, "--digest", "abc"], 2, "'abc' is no digest"),
        ([PLAIN, "--key", "none.pem"], 2, "none.pem cannot be read"),
        ([PLAIN, "--key", "wrong.pem"], 2, "not a public Ed25519 key"),
    ],
)
def test_the_command_requires_the_digest_and_the_signature(
    command: Command, arguments: list[str], code: int, sentence: str
) -> None:
    done = command("verify", *arguments)
    assert (done.code, sentence in done.out + done.err) == (code, True), done
    assert "Traceback" not in done.err


def test_the_command_prints_the_signature_as_json(command: Command) -> None:
    report = json.loads(command("verify", SIGNED, "--json").out)
    assert (report["ok"], report["signed"]) == (True, True)
    assert command("verify", SIGNED, "--digest", report["digest"]).code == 0
    assert not json.loads(command("verify", PLAIN, "--json").out)["signed"]


async def test_python_requires_the_digest_and_the_signature() -> None:
    signed = await shardline.verify(SIGNED, key="ours.pem")
    assert (signed.ok, signed.signed, signed.notes) == (True, True, ())
    assert (await shardline.verify(PLAIN, digest=signed.digest)).ok
    assert not (await shardline.verify(PLAIN, digest=OTHER)).ok
    unsigned = await shardline.verify(Path(PLAIN), key=Path("ours.pem"))
    assert (unsigned.ok, unsigned.signed) == (False, False)
    with pytest.raises(errors.UsageError, match="is no digest"):
        await shardline.verify(PLAIN, digest="")


def test_the_sync_twin_takes_both() -> None:
    result = sync.verify(SIGNED, key="ours.pem")
    assert sync.verify(SIGNED, key="ours.pem", digest=result.digest) == result


@pytest.mark.parametrize("above", ["signed", "signed/laws", "."])
def test_verify_of_a_folder_above_names_the_datasets_below(above: str, command: Command) -> None:
    done = command("verify", above)
    assert done.code == 1
    assert "there is no manifest.json" in done.err
    assert "datasets in folders below" in done.err.replace("\n", " ")
    assert SIGNED in done.err.replace("\n", "")
