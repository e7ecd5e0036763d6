"""A hostile model: an OpenAI-compatible server on loopback that calls tools as callers say, and repeats all that it was shown.

A message `CALLS {"rounds": [[["echo", {"text": "x"}, 1]], ...], "forever": true}` names the calls of each of its turns, and how
often each is made. With `forever` the last round comes again and again, also where no call is allowed. In arguments `$N` is
another number each time, `$LONG` a megabyte, and `$DEEP` a list in lists. Prints its port.
"""

import json
import re
import secrets
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
MODEL, WORD = "asker", "CALLS "
CONTEXT_TOKENS = 32_768
MAX_REPEATED_CHARS = 20_000
Call = tuple[str, Any] | tuple[str, Any, int]
_LONG, _DEEP = "x" * 1_000_000, "[" * 100_000 + "]" * 100_000


def asks(rounds: Sequence[Sequence[Call]], *, forever: bool = False) -> str:
    """The message that has it make these calls."""
    return WORD + json.dumps({"rounds": rounds, "forever": forever})


def reply(body: Json) -> Json:
    """Its message: calls as long as it was told to make some, then all texts that it was shown."""
    texts = [_text(message.get("content")) for message in body["messages"]]
    orders = [found for text in texts if (found := _order(text))]
    made = sum(bool(message.get("tool_calls")) for message in body["messages"])
    if orders and body.get("tools"):
        rounds, forever = orders[-1]["rounds"], orders[-1]["forever"]
        if forever or (made < len(rounds) and body.get("tool_choice") != "none"):
            return {"role": "assistant", "content": None, "tool_calls": _calls(rounds[min(made, len(rounds) - 1)])}
    tools = json.dumps([tool["function"]["name"] for tool in body.get("tools") or ()])
    shown = "\n".join([*(text for text in texts if not _order(text)), tools])
    return {"role": "assistant", "content": f"I was shown: {shown[-MAX_REPEATED_CHARS:]}"}


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


def _order(text: str) -> Json | None:
    try:
        found: Json = json.JSONDecoder().raw_decode(text.partition(WORD)[2])[0]
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"rounds", "forever"} <= found.keys() else None


def _calls(wanted: Sequence[Call]) -> list[Json]:
    made = [each for each in wanted for _ in range(each[2] if len(each) > 2 else 1)]
    return [
        {"index": index, "id": f"call_{secrets.token_hex(4)}", "type": "function", "function": _function(*each[:2])}
        for index, each in enumerate(made)
    ]


def _function(name: str, given: Any) -> Json:
    """Arguments that are a text go as they are: they need not be JSON."""
    written = given if isinstance(given, str) else json.dumps(given)
    written = written.replace("$LONG", _LONG).replace("$DEEP", _DEEP)
    return {"name": name, "arguments": re.sub(r"\$N", lambda _: secrets.token_hex(4), written)}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "x", "max_model_len": CONTEXT_TOKENS}
        self._send("application/json", json.dumps({"object": "list", "data": [model]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = reply(body)
        reason = "tool_calls" if said.get("tool_calls") else "stop"
        usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
        head = {"id": "x", "created": 0, "model": MODEL, "usage": usage}
        if not body.get("stream"):
            choice = {"index": 0, "message": said, "finish_reason": reason}
            return self._send(
                "application/json", json.dumps({**head, "object": "chat.completion", "choices": [choice]})
            )
        choice = {"index": 0, "delta": said, "finish_reason": reason}
        chunk = json.dumps({**head, "object": "chat.completion.chunk", "choices": [choice]})
        return self._send("text/event-stream", f"data: {chunk}\n\ndata: [DONE]\n\n")

    def _send(self, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Runs end while it answers: nothing to tell."""


if __name__ == "__main__":
    server = _Server(("127.0.0.1", 0), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
