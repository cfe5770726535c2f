"""HTTP as a client: JSON requests with retries, and TLS trust. The client side of aiohttp."""
