"""A client's checks: each prints one line of JSON, whether it holds or not."""

import json
import os
from collections.abc import Callable
from typing import Any

WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    # Closed: a small model that is forced to call fills an open object with inventions until its tokens end.
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
FUNCTION = {"type": "function", "function": WEATHER}
HI = [{"role": "user", "content": "Say hello."}]
ASK = [{"role": "user", "content": "What is the weather in Paris? Use the tool."}]


def check(name: str, holds: Callable[[], Any], clever: bool = False) -> None:
    """`holds` returns something true if all is right; what it raises is the result.

    Not asked of small models with real weights where only a clever one does it, as calling a tool when it is free to.
    """
    if clever and "REAL_WEIGHTS" in os.environ:
        return
    try:
        result = "ok" if holds() else "wrong answer"
    except Exception as error:  # noqa: BLE001 - whatever the client raises is the finding
        result = f"{type(error).__name__}: {error}"[:1500]
    print(json.dumps({"check": name, "result": result}), flush=True)
