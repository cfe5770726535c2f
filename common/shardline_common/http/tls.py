"""The certificate authorities that a client trusts."""

import ssl

from shardline_common.errors import UsageError


def tls_context(ca_file: str | None) -> ssl.SSLContext | bool:
    """A context that trusts the authorities of a PEM file; for None True, which selects the system's.

    Raises:
        UsageError: the file cannot be read.
    """
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise UsageError(f"the CA file {ca_file} cannot be read: {error}") from None
