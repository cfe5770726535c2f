"""URLs of services: what of them may be shown, and what may be sent."""

from yarl import URL


def encoded(url: str) -> str:
    """The URL percent-encoded, as it is sent. Raises ValueError where it is no URL."""
    return str(URL(url))


def origin(url: str) -> str:
    """Scheme, host and port: what a message may show of a URL that may hold a secret."""
    return str(URL(url).origin())


def without_user(url: str) -> str:
    """The URL without a user's name and password, without a slash at its end."""
    return str(URL(url).with_user(None)).rstrip("/")
