"""Signed datasets: who lacks the private key cannot forge one, also not by recomputing every hash."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from shardline.services.local_run import run_job, verify_dataset
from shardline.services.sample import write_sample
from shardline.services.wiring.signing import dataset_signer
from shardline_common.dataset.success import SuccessMarker, hash_of
from shardline_common.errors import UsageError
from shardline_common.settings.load import Settings
from tests.support.embedded import small_job


class Keys:
    """A pair of keys: the private one as PEM text, the public one in a file."""

    def __init__(self, folder: Path, name: str) -> None:
        key = Ed25519PrivateKey.generate()
        self.private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self.public = folder / f"{name}.pem"
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.public.write_bytes(pem)


async def signed_dataset(folder: Path, private: str | None) -> str:
    source = folder / "sample.jsonl"
    write_sample(source, 60)
    spec = small_job(source={"type": "files", "paths": [str(source)]})
    settings = Settings(signing_key=private)
    return (await run_job(spec, str(folder / "out"), settings, lambda _: None)).dataset


async def test_a_signature_is_required_of_the_key_that_is_given(tmp_path: Path) -> None:
    ours, theirs = Keys(tmp_path, "ours"), Keys(tmp_path, "theirs")
    dataset = await signed_dataset(tmp_path, ours.private)
    report = await verify_dataset(dataset, Settings())
    assert (report.ok, report.signed) == (True, True)
    assert (await verify_dataset(dataset, Settings(), key=ours.public)).ok
    report = await verify_dataset(dataset, Settings(), key=theirs.public)
    assert report.problems == ["_SUCCESS has no signature of this key"]


async def test_a_dataset_without_a_signature_is_refused_where_a_key_is_given(tmp_path: Path) -> None:
    keys = Keys(tmp_path, "ours")
    dataset = await signed_dataset(tmp_path, None)
    report = await verify_dataset(dataset, Settings(), key=keys.public)
    assert report.problems == ["_SUCCESS has no signature of this key"]
    assert not report.signed


async def test_a_forger_who_recomputes_the_hashes_cannot_sign(tmp_path: Path) -> None:
    keys = Keys(tmp_path, "ours")
    dataset = Path(await signed_dataset(tmp_path, keys.private))
    marker = SuccessMarker.decode((dataset / "_SUCCESS").read_bytes())
    card = (dataset / "README.md").read_bytes() + b"More.\n"
    (dataset / "README.md").write_bytes(card)
    forged = SuccessMarker.decode(
        (dataset / "_SUCCESS")
        .read_bytes()
        .replace(marker.hashes["README.md"].encode(), hash_of(card).encode())
    )
    (dataset / "_SUCCESS").write_bytes(forged.encode())
    assert (await verify_dataset(str(dataset), Settings())).ok
    assert not (await verify_dataset(str(dataset), Settings(), key=keys.public)).ok


async def test_an_expected_digest_is_compared(tmp_path: Path) -> None:
    dataset = await signed_dataset(tmp_path, None)
    digest = (await verify_dataset(dataset, Settings())).digest
    assert (await verify_dataset(dataset, Settings(), digest=digest)).ok
    report = await verify_dataset(dataset, Settings(), digest="0" * 64)
    assert report.problems == [f"the digest is {digest}, not the expected {'0' * 64}"]


@pytest.mark.parametrize("text", ["", "no key", "rsa"])
def test_a_wrong_key_is_a_sentence_that_does_not_show_it(text: str) -> None:
    if text == "rsa":
        key = generate_private_key(65537, 2048)
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(UsageError, match="not a private Ed25519 key") as caught:
        dataset_signer(Settings(signing_key=text))
    assert not text or text not in str(caught.value)


async def test_a_wrong_public_key_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        await verify_dataset(str(tmp_path), Settings(), key=tmp_path / "none.pem")
    (tmp_path / "wrong.pem").write_text("wrong")
    with pytest.raises(UsageError, match="not a public Ed25519 key"):
        await verify_dataset(str(tmp_path), Settings(), key=tmp_path / "wrong.pem")
