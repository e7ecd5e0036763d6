"""`cappella ask`: one question, and what comes of it."""

import json

from cappella.cli.client import request
from cappella.cli.client.http import Server, parsed, post
from cappella.cli.client.request import PATH, AskOptions


async def ask(server: Server, options: AskOptions, prompt: str, as_json: bool, quiet: bool) -> None:
    """Print the run: live on a terminal, the answer alone in a pipe or if `quiet`, whole as JSON. Raises ServerError."""
    turns = [{"role": "user", "content": prompt}]
    console = request.watched_console()
    if as_json:
        async with post(server, PATH, options.body(turns, include_intermediate_responses=True)) as response:
            print(json.dumps(parsed(await response.read()), indent=2, ensure_ascii=False))
    elif console and not quiet:
        await request.show(server, options, turns, console, whole_members=True)
    else:
        await request.tell(server, options, turns, at_once=bool(console))
