"""`cappella ask`: one question, and what comes of it."""

import json

from cappella.remote import Server, parsed, post
from cappella.terminal import asking
from cappella.terminal.asking import PATH, Wish


async def ask(server: Server, wish: Wish, prompt: str, as_json: bool, quiet: bool) -> None:
    """Print the run: live on a terminal, the answer alone in a pipe or if `quiet`, whole as JSON. Raises ServerError."""
    turns = [{"role": "user", "content": prompt}]
    console = asking.watched_console()
    if as_json:
        async with post(server, PATH, wish.body(turns, include_intermediate_responses=True)) as response:
            print(json.dumps(parsed(await response.read()), indent=2, ensure_ascii=False))
    elif console and not quiet:
        await asking.show(server, wish, turns, console, whole_members=True)
    else:
        await asking.tell(server, wish, turns, at_once=bool(console))
