"""The certificate authorities that a client trusts, and the handshakes that no retry changes."""

import ssl

from shardline_common.errors import UsageError

# The other side, or the network, ended the connection during the handshake.
_BROKEN_OFF = (
    ssl.SSLEOFError,
    ssl.SSLSyscallError,
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
    ssl.SSLZeroReturnError,
)


def is_tls_refused(error: BaseException) -> bool:
    """Whether TLS could not be agreed on: a certificate that is not trusted, no common version, no TLS there.

    Looks into the causes of the error, because client libraries wrap it.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return not isinstance(cause, _BROKEN_OFF)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return False


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
        raise UsageError(
            f"the CA file {ca_file} cannot be read: {error}",
            hint="correct the setting that names it, or put a PEM file there",
        ) from None
