"""An MCP server over streamable HTTP, made with the SDK: `mcp_http_server.py PORT KEY` serves those who bring the key."""

import sys
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send


def application() -> ASGIApp:
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("small")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    def big() -> str:
        """Say more than may be said."""
        return "x" * (20 << 20)

    return server.streamable_http_app(json_response=True)


def with_key(app: ASGIApp, key: str) -> ASGIApp:
    """The application for those who bring the key; others get a 401."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope.get("headers", ()))
        if scope["type"] == "http" and headers.get(b"authorization") != f"Bearer {key}".encode():
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    return checked


def main(port: int, key: str) -> None:
    app: Any = with_key(application(), key)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
