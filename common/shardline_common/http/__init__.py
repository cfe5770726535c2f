"""The HTTP client: one attempt of a request, TLS trust, and URLs without credentials."""
