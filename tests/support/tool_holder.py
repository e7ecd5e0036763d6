"""`python -m support.tool_holder FOLDER`: holds the small tool server with a process that left its session, until it is killed."""

import asyncio
import json
import sys
from pathlib import Path

from support.tool_server import running


async def main(folder: Path) -> None:
    async with running(folder, env={"MARK": str(folder)}) as small:
        await small.call("children", {})
        away = await small.call("connect", {})
        print(json.dumps({"notes": small.details.notes, "away": away.text}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
