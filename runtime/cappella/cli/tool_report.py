"""`cappella check --tools`: starts the tool servers of a config, and shows what each offers, what confines it, and its problems."""

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cappella.cli.client.text import clipped, safe
from cappella.config import Config
from cappella.tools.servers import CountedServer, ToolServers, require_installed

MAX_START_S = 60.0
POLL_S = 0.05
MAX_DESCRIPTION_CHARACTERS = 100


async def show(config: Config) -> bool:
    """Print a report; returns whether every tool server serves, and nothing of it is left out."""
    require_installed(config)
    with _unlogged(), tempfile.TemporaryDirectory(prefix="cappella-check-") as folder:
        # Without engines documents are found by their words alone.
        async with ToolServers(config, Path(folder), {}).running() as servers:
            await servers.settled(MAX_START_S)
            while any(server.problem is None and not server.details.is_counted for server in servers.values()):
                await asyncio.sleep(POLL_S)
            for server in servers.values():
                print("\n".join(_lines(server)))
            return not any(server.problem or server.details.notes for server in servers.values())


@contextmanager
def _unlogged() -> Iterator[None]:
    """What a gateway would log of its tool servers is in the report."""
    logger, nowhere = logging.getLogger("cappella"), logging.NullHandler()
    logger.addHandler(nowhere)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(nowhere)


def _lines(server: CountedServer) -> Iterator[str]:
    details = server.details
    if server.problem:
        yield safe(f"{server.name}: PROBLEM: {server.problem}")
    else:
        counts = f"{len(server.tools)} tools, {details.prompts} prompts, {details.resources} resources"
        yield safe(f"{server.name}: ok, {counts}; confined by: {details.confined_by}")
    for tool in server.tools:
        line = " ".join(tool.description.split())
        yield safe(f"  {tool.name}: {clipped(line, MAX_DESCRIPTION_CHARACTERS)}")
    for note in details.notes:
        yield safe(f"  PROBLEM: {note}")
