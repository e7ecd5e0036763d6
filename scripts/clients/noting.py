"""Notes each request to an application, and its reply, as lines of JSON in a file."""

import json
from pathlib import Path
from typing import Any


class Noting:
    """The application, with a line of JSON in a file for each request that ended."""

    def __init__(self, app: Any, file: Path) -> None:
        self._app = app
        self._file = file

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        sent, replied = bytearray(), bytearray()
        status = 0

        async def noting_receive() -> Any:
            message = await receive()
            sent.extend(message.get("body", b""))
            return message

        async def noting_send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            replied.extend(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, noting_receive, noting_send)
        finally:
            note = {
                "request": f"{scope['method']} {scope['path']}",
                "status": status,
                "sent": sent.decode(errors="replace"),
            }
            with self._file.open("a") as file:
                file.write(json.dumps({**note, "replied": replied.decode(errors="replace")}) + "\n")
