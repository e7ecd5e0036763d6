"""`cappella ask`: one question and its run."""

import json

from cappella.cli.client import request
from cappella.cli.client.http import Server, parsed, post
from cappella.cli.client.request import PATH, AskOptions
from cappella.cli.client.why import Why


async def ask(server: Server, options: AskOptions, prompt: str, as_json: bool, quiet: bool, why: bool) -> None:
    """Print the run: live on a terminal, only the answer in a pipe or if `quiet`, or all of it as JSON. Raises ServerError."""
    turns = [{"role": "user", "content": prompt}]
    console = request.watched_console()
    if as_json:
        async with post(server, PATH, options.body(turns, include_intermediate_responses=True)) as response:
            print(json.dumps(parsed(await response.read()), indent=2, ensure_ascii=False))
    elif console and not quiet:
        view = await request.show(server, options, turns, console, whole_members=True)
        if why:
            console.print(Why(view))
    else:
        await request.stream_plain(server, options, turns, at_once=bool(console))
