"""Why a request had no complete response: the meaning of each exception of a client, and what to do.

One table for the exceptions of aiohttp, TLS and sockets. An adapter of another client library adds its own
lines. A test fails for an exception class of these libraries that no line covers.
"""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp import client_exceptions, http_exceptions

from shardline_common.runtime.masking import mask

_MAX_WORDS = 300
# A URL may hold a user and a password.
_USER_INFO = re.compile(r"(?<=://)[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Fault:
    """The meaning of an exception.

    `permanent`: no retry helps until somebody changes a setting. `advice` is one thing to do, with the
    places {address} and {ca} for the names of settings. `wraps`: the class says little, and the exception
    that it wraps is looked up first.
    """

    permanent: bool
    meaning: str
    advice: str
    wraps: bool = False

    def hint(self, address: str, ca: str) -> str:
        """The advice. `address` and `ca` name the settings of the service's URL and of its CA file."""
        return self.advice.format(address=address, ca=ca)


_START = "check that it runs, and {address}"
_PROXY = "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
_TLS_PORT = "check that {address} has https:// only where the port speaks TLS"
UNREACHABLE = Fault(False, "it cannot be reached", _START, wraps=True)
SILENT = Fault(False, "it does not answer in time", _START)
DROPPED = Fault(
    False,
    "it closed the connection before the end of its answer",
    "check that it runs, and that {address} begins with https:// if its port speaks TLS",
)
CERTIFICATE = Fault(
    True, "its certificate is not trusted", "check the name and the authority of its certificate, and {ca}"
)
NO_TLS = Fault(True, "TLS cannot be agreed on", _TLS_PORT)
NAME = Fault(
    False, "its host name cannot be resolved", "check the host in {address}, and the DNS of this machine"
)
PROXY = Fault(False, "the proxy cannot be connected to", _PROXY)
NOT_HTTP = Fault(False, "its answer is not HTTP", "check that {address} begins with https:// if it wants TLS")
ADDRESS = Fault(True, "its address is not valid", "correct {address}")
FILE = Fault(True, "a file of the settings cannot be read", "check the files that the settings name")
_REDIRECT = Fault(True, "it redirects to where no answer is", "correct {address}")

HTTP_FAULTS: Mapping[type[BaseException], Fault] = {
    ssl.SSLCertVerificationError: CERTIFICATE,
    # The other side, or the network, ended the connection during the handshake.
    ssl.SSLEOFError: DROPPED,
    ssl.SSLSyscallError: DROPPED,
    ssl.SSLWantReadError: DROPPED,
    ssl.SSLWantWriteError: DROPPED,
    ssl.SSLZeroReturnError: DROPPED,
    ssl.SSLError: NO_TLS,
    socket.gaierror: NAME,
    socket.herror: NAME,
    ConnectionRefusedError: Fault(False, "nothing listens at its address", "start it, or correct {address}"),
    ConnectionError: DROPPED,
    TimeoutError: SILENT,
    FileNotFoundError: FILE,
    # A firewall of this machine, or a file.
    PermissionError: Fault(
        False,
        "the system does not permit it",
        "check the firewall, and the rights on the files of the settings",
    ),
    IsADirectoryError: FILE,
    NotADirectoryError: FILE,
    OSError: UNREACHABLE,
    # A host name that DNS does not allow.
    UnicodeError: ADDRESS,
    ValueError: ADDRESS,
    aiohttp.ClientConnectorCertificateError: Fault(True, CERTIFICATE.meaning, CERTIFICATE.advice, wraps=True),
    aiohttp.ClientSSLError: Fault(True, NO_TLS.meaning, NO_TLS.advice, wraps=True),
    aiohttp.ServerFingerprintMismatch: CERTIFICATE,
    aiohttp.ClientConnectorDNSError: NAME,
    aiohttp.ClientProxyConnectionError: PROXY,
    aiohttp.ClientHttpProxyError: Fault(False, "the proxy refuses", _PROXY),
    aiohttp.ClientConnectionResetError: DROPPED,
    aiohttp.ServerTimeoutError: SILENT,
    aiohttp.ServerConnectionError: DROPPED,
    aiohttp.ClientConnectionError: UNREACHABLE,
    aiohttp.ClientPayloadError: DROPPED,
    # Of aiohttp from 3.14 on.
    getattr(client_exceptions, "UploadAbortedError", aiohttp.ClientPayloadError): DROPPED,
    aiohttp.InvalidURL: ADDRESS,
    aiohttp.NonHttpUrlClientError: ADDRESS,
    aiohttp.RedirectClientError: _REDIRECT,
    aiohttp.TooManyRedirects: _REDIRECT,
    aiohttp.ContentTypeError: Fault(True, "its answer is of another kind", "correct {address}"),
    # aiohttp raises it for a status line or a header that is not HTTP.
    aiohttp.ClientResponseError: NOT_HTTP,
    aiohttp.WSMessageTypeError: NOT_HTTP,
    http_exceptions.PayloadEncodingError: DROPPED,
    http_exceptions.InvalidURLError: ADDRESS,
    http_exceptions.HttpProcessingError: NOT_HTTP,
}


def find_fault(
    error: BaseException, faults: Mapping[type[BaseException], Fault] = HTTP_FAULTS
) -> tuple[Fault, BaseException]:
    """The line of an exception, and the exception among those that it wraps that has this line.

    An exception without a line is UNREACHABLE.
    """
    fallback: tuple[Fault, BaseException] | None = None
    for inner in _wrapped(error):
        found = fault_of(type(inner), faults)
        if found is None:
            continue
        if not found.wraps:
            return found, inner
        fallback = fallback or (found, inner)
    return fallback or (UNREACHABLE, error)


def fault_of(kind: type[BaseException], faults: Mapping[type[BaseException], Fault]) -> Fault | None:
    """The line of the class, or of the nearest base class that has one."""
    return next((faults[base] for base in kind.__mro__ if base in faults), None)


def _wrapped(error: BaseException) -> Iterator[BaseException]:
    # botocore keeps the exception that it wraps in `kwargs`, aiohttp in `os_error`, others as the cause.
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        kept = getattr(found, "kwargs", None)
        inner = kept.get("error") if isinstance(kept, dict) else None
        inner = inner or getattr(found, "os_error", None)
        if not isinstance(inner, BaseException):
            inner = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
        found = inner


def words(text: object, secrets: tuple[str, ...] = ()) -> str:
    """Foreign text for a message: one line, of a sane length, without control characters and secrets."""
    found = " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())
    found = mask(found, secrets)
    found = _USER_INFO.sub("", found)
    return found if len(found) <= _MAX_WORDS else f"{found[:_MAX_WORDS]}…"
