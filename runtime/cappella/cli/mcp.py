"""`cappella mcp`: tools for agents, over standard input and output."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cappella.cli.ask import Model, ServerKey, Url
from cappella.cli.client.address import DEFAULT_URL
from cappella.cli.completion import DEFAULT_MODEL
from cappella.cli.errors import one_line_errors
from cappella.errors import ConfigError
from cappella.vocabulary import Json

if TYPE_CHECKING:
    from cappella.cli.client.http import Server

LIST_TIMEOUT_S = 30.0


def mcp(url: Url = DEFAULT_URL, model: Model = DEFAULT_MODEL, key: ServerKey = None) -> None:
    """Serve the Model Context Protocol on standard input and output: agents ask a running server for a second opinion.

    Its tools are ask_panel, compare and list_models. An agent starts this command itself; give it a key in CAPPELLA_KEY.
    """
    from cappella.cli.client.http import Server

    with one_line_errors():
        try:
            from cappella.gateway.mcp.tools import server_of
        except ImportError as error:
            raise ConfigError("this Python", "mcp is not installed", "pip install 'cappella[mcp]'") from error
        remote = Remote(Server(url, key), model)
        asyncio.run(server_of(lambda _: remote).run_stdio_async())


@dataclass(frozen=True)
class Remote:
    """See `gateway.mcp.tools.Asked`: a server at an address."""

    server: "Server"
    default_model: str

    def stream(self, body: Json) -> AsyncGenerator[Json, None]:
        from cappella.cli.client.http import stream
        from cappella.cli.client.request import PATH

        return stream(self.server, PATH, body)

    async def models(self) -> Json:
        from cappella.cli.client.http import get

        return await get(self.server, "/v1/models", LIST_TIMEOUT_S)
