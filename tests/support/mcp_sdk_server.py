"""An MCP server made with the SDK: `mcp_sdk_server.py PORT KEY` serves those who bring the key, `mcp_sdk_server.py stdio` its parent."""

import sys
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send


def made() -> Any:
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

    return server


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
    app: Any = with_key(made().streamable_http_app(json_response=True), key)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    made().run() if sys.argv[1] == "stdio" else main(int(sys.argv[1]), sys.argv[2])
