"""A small MCP server over standard input and output, written without the SDK so that it can also misbehave.

`mcp_server.py [WAY]`: WAY is how it misbehaves, or a path: it greets once this file exists. Its tools echo, add, fail, hang, and try to reach the network.
"""

import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

OBJECT = {"type": "object", "properties": {}}
ECHO = {
    "name": "echo",
    "description": "Say it again.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": f"The tool {name}.", "inputSchema": OBJECT, **more}


NAMES = "environment big mixed structured hang crash connect look_up children ask_back change memory flood ids log"
TOOLS = [ECHO, *map(tool, NAMES.split())]
LYING = [
    ECHO,
    tool("no_object", inputSchema="text"),
    tool("broken", inputSchema={"type": "object", "properties": {"a": {"$ref": "#/$defs/nowhere"}}}),
    tool("afar", inputSchema={"type": "object", "properties": {"a": {"$ref": "http://192.0.2.1/schema.json"}}}),
    tool("long", description="x" * 1_000_000),
    tool("a.b c"),
    tool("a b.c"),
    tool("", description="nameless"),
    {"inputSchema": OBJECT},
    "no tool",
]


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(*texts: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": each} for each in texts]}


def attempt(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), timeout=5):
            return "connected"
    except OSError as error:
        return f"refused: {error}"


def ask_back() -> str:
    """Ask the client to sample from a model, for its roots, and a person for input; returns what it said."""
    said = []
    message = {"role": "user", "content": {"type": "text", "text": "Hi"}}
    for method, params in (
        ("sampling/createMessage", {"messages": [message], "maxTokens": 5}),
        ("roots/list", {}),
        ("elicitation/create", {"message": "Your name?", "requestedSchema": OBJECT}),
    ):
        send({"id": method, "method": method, "params": params})
        reply = json.loads(sys.stdin.readline())
        while "method" in reply:
            # The client asks on meanwhile; it gets no answer.
            reply = json.loads(sys.stdin.readline())
        said.append(f"{reply['id']}: {'refused' if 'error' in reply else 'granted'}")
    return ", ".join(said)


def called(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    match name:
        case "echo":
            return text(arguments["text"])
        case "environment":
            return text(json.dumps(dict(os.environ)))
        case "big":
            return text("é" * 200_000)
        case "structured":
            return {"content": [], "structuredContent": {"sum": 3}}
        case "mixed":
            resource = {"uri": "file:///notes.txt", "text": "Gonil lives in room 7.", "mimeType": "text/plain"}
            image = {"type": "image", "data": "aGFsbG8=", "mimeType": "image/png"}
            return {"content": [{"type": "resource", "resource": resource}, image, {"type": "text", "text": "Done."}]}
        case "hang":
            time.sleep(3600)
        case "crash":
            print(arguments.get("text", "the reason of the crash"), file=sys.stderr, flush=True)
            os._exit(3)
        case "connect":
            return text(attempt(arguments.get("host", "192.0.2.1"), arguments.get("port", 80)))
        case "children":
            # One that leaves its session, and would outlive a process group.
            left = subprocess.Popen(["sleep", "3600"], start_new_session=True)
            return text(f"{os.getpid()} {left.pid}")
        case "ids":
            return text(f"{os.getppid()} {len([each for each in os.listdir('/proc') if each.isdigit()])}")
        case "ask_back":
            return text(ask_back())
        case "change":
            TOOLS.append(tool("added"))
            send({"method": "notifications/tools/list_changed"})
            return text("changed")
        case "memory":
            held = bytearray(arguments["bytes"])
            return text(str(len(held)))
        case "flood":
            while True:
                send({"method": "notifications/message", "params": {"level": "info", "data": "x" * 1000}})
        case "log":
            for _ in range(arguments["lines"]):
                print("x" * 1000, file=sys.stderr)
            return text("written")
    return {**text(f"no {name}"), "isError": True}


def result_of(method: str, params: dict[str, Any], way: str) -> dict[str, Any]:
    match method:
        case "initialize":
            version = params["protocolVersion"]
            capabilities = {"tools": {"listChanged": True}, "prompts": {}, "resources": {}}
            return {
                "protocolVersion": version,
                "capabilities": capabilities,
                "serverInfo": {"name": "s", "version": "1"},
            }
        case "tools/list":
            page = {"tools": [tool("long", description="x" * 1_000_000)], "nextCursor": "more"}
            if way == "endless":
                at = int(params.get("cursor") or 0)
                return {"tools": [tool(f"t{at}")], "nextCursor": str(at + 1)}
            return page if way == "pages" else {"tools": LYING if way == "lying" else TOOLS}
        case "prompts/list":
            return {"prompts": [{"name": "greet"}]}
        case "resources/list":
            return {"resources": [{"name": "a", "uri": "file:///a"}, {"name": "b", "uri": "file:///b"}]}
        case "tools/call":
            return called(params["name"], params.get("arguments") or {})
    return {}


def main(way: str) -> None:
    match way:
        case "ends":
            print("no settings found", file=sys.stderr)
            sys.exit(4)
        case "giant":
            while True:
                sys.stdout.write("x" * 1_000_000)
        case "prints":
            print("Welcome to the server!", flush=True)
        case "connects":
            attempt("192.0.2.77", 443)
        case path if path.startswith("/"):
            while not os.path.exists(path):
                time.sleep(0.01)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            if way == "deaf" and message["method"] == "tools/call":
                time.sleep(3600)
            if way == "no_prompts" and message["method"] == "prompts/list":
                continue
            send({"id": message["id"], "result": result_of(message["method"], message.get("params") or {}, way)})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
