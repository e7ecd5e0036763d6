"""Where a server listens, as people write it."""

DEFAULT_URL = "http://127.0.0.1:8000"


def base_url(text: str) -> str:
    """The address without `/v1`, as Cappella's own paths need it; http where no scheme is given."""
    url = text if "://" in text else f"http://{text}"
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
