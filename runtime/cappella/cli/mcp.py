"""`cappella mcp`: tools for agents, over standard input and output."""

import asyncio

from cappella.cli.ask import Model, ServerKey, Url
from cappella.cli.client.address import DEFAULT_URL
from cappella.cli.completion import DEFAULT_MODEL
from cappella.cli.errors import one_line_errors
from cappella.errors import ConfigError


def mcp(url: Url = DEFAULT_URL, model: Model = DEFAULT_MODEL, key: ServerKey = None) -> None:
    """Serve the Model Context Protocol on standard input and output: agents ask a running server for a second opinion.

    Its tools are ask_panel, compare and list_models. An agent starts this command itself; give it a key in CAPPELLA_KEY.
    """
    from cappella.cli.client.http import Server

    with one_line_errors():
        try:
            from cappella.cli.client.mcp_tools import server_of
        except ImportError as error:
            raise ConfigError("this Python", "mcp is not installed", "pip install 'cappella[mcp]'") from error
        asyncio.run(server_of(Server(url, key), model).run_stdio_async())
