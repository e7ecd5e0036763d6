"""`cappella reload`: tells a running server to read its config anew."""

from cappella.cli.client.http import Server, parsed, post


async def reload(server: Server) -> None:
    """Print what came of it. Raises ConfigError for a config that is refused: then nothing has changed."""
    async with post(server, "/api/reload", {}) as response:
        told = parsed(await response.read())
    for what in ("started", "ended", "kept"):
        if told[what]:
            print(f"{what}: {', '.join(told[what])}")
    print(f"serving: {', '.join(f'cappella/{name}' for name in told['ensembles'])}")
