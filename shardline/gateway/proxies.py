"""The proxies in front of the gateway whose headers about the client are believed. Pure."""

from ipaddress import ip_network

from starlette.requests import HTTPConnection

from shardline_common.errors import UsageError

_IPV4, _MAPPED_BITS = 4, 96


def trusted_proxies(setting: str) -> list[str]:
    """Return the addresses and networks of GATEWAY_TRUSTED_PROXIES.

    Uvicorn takes scheme and address of a request that comes from one of them from `X-Forwarded-Proto` and
    `X-Forwarded-For`.

    Raises:
        UsageError: an entry is neither an address nor a network. A `*` would let every client write them.
    """
    entries = [entry.strip() for entry in setting.split(",") if entry.strip()]
    mapped = list[str]()
    for entry in entries:
        try:
            network = ip_network(entry)
        except ValueError as error:
            raise UsageError(
                f"GATEWAY_TRUSTED_PROXIES: {entry[:100]!r} is neither an address nor a network ({error})",
                hint="list the proxies as in 10.0.0.7, 10.1.0.0/16",
            ) from None
        if network.version == _IPV4:
            # A socket of IPv6 that accepts IPv4, too, shows an address of IPv4 like this.
            mapped.append(f"::ffff:{network.network_address}/{_MAPPED_BITS + network.prefixlen}")
    return entries + mapped


def uses_https(connection: HTTPConnection) -> bool:
    """Whether the browser uses https, so that it keeps and returns a cookie with `Secure`.

    A browser names the scheme of its page in `Origin` with every form that it posts, also when a proxy ends
    TLS and does not say so. A client that lies about it changes only its own cookie.
    """
    if connection.url.scheme == "https":
        return True
    return connection.headers.get("origin", "").lower().startswith("https://")
