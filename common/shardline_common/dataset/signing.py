"""Signatures of datasets with Ed25519 keys. Without the private key nobody can forge a signed dataset."""

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from shardline_common.errors import UsageError

_MAKE = "make a pair with `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout`"


def private_key(pem: str) -> Ed25519PrivateKey:
    """The key of a PEM text (PKCS #8, without a password). Raises UsageError; the text is never shown."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError("the signing key is not a private Ed25519 key in PEM format", hint=_MAKE)
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """The key in a PEM file. Raises UsageError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path} is not a public Ed25519 key in PEM format", hint=_MAKE)
    return key


def is_signed_by(key: Ed25519PublicKey, signature: bytes | None, signed: bytes) -> bool:
    """Whether the signature is that of the key for these bytes."""
    try:
        key.verify(signature or b"", signed)
    except InvalidSignature:
        return False
    return True
