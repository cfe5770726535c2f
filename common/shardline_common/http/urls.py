"""URLs of services: as they are sent, and as they may be shown."""

from yarl import URL


def encoded(url: str) -> str:
    """The URL percent-encoded, as it is sent. Raises ValueError when it is not a URL."""
    return str(URL(url))


def origin(url: str) -> str:
    """Scheme, host and port: the part that may be shown of a URL that may hold a secret."""
    return str(URL(url).origin())


def base_url(url: str) -> str:
    """Scheme, host, port and path of a URL. The paths of requests are appended to it.

    User name, password, query, fragment, and slashes at the end are removed. Raises ValueError when it is not
    a URL.
    """
    return str(URL(url).with_user(None).with_query(None).with_fragment(None)).rstrip("/")
