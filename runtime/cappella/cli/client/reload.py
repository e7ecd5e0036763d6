"""`cappella reload`: reload the config of a running server."""

from cappella.cli.client.http import Server, parsed, post


async def reload(server: Server) -> None:
    """Print what changed. Raises ConfigError if the config is invalid; then nothing has changed."""
    async with post(server, "/api/reload", {}) as response:
        reply = parsed(await response.read())
    for change in ("started", "ended", "kept"):
        if reply[change]:
            print(f"{change}: {', '.join(reply[change])}")
    print(f"serving: {', '.join(f'cappella/{name}' for name in reply['ensembles'])}")
