"""Ollama's `/api/chat` and `/api/generate`: a request as one for a chat completion, which ensembles and models both take."""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from cappella.errors import RequestError
from cappella.types import Json

CHAT, GENERATE = "/api/chat", "/api/generate"
_OPTIONS = {
    **{name: name for name in "temperature top_p top_k min_p seed stop presence_penalty frequency_penalty".split()},
    "repeat_penalty": "repetition_penalty",
}
"""The options that are honoured, and their names in a chat completion; `num_predict` has a value of its own for no limit."""
_DEFAULTS = {"mirostat": 0, "typical_p": 1, "tfs_z": 1}
"""Options that engines do not have, with the values that ask for nothing."""
_HINTS = frozenset(
    "num_ctx num_batch num_gpu main_gpu num_thread numa use_mmap use_mlock low_vram f16_kv vocab_only logits_all"
    " num_keep mirostat_tau mirostat_eta".split()
)
"""Options for how Ollama runs a model, which the config says here, and those of what is refused."""
_OWN = frozenset("model stream options format think keep_alive truncate shift messages prompt system images".split())
_REFUSED = {
    "suffix": "send suffix to /v1/completions",
    "template": "the model's own chat template is used",
    "raw": "send a raw prompt to /v1/completions",
    "context": "send the conversation as messages to /api/chat",
    "n": "ask /v1/chat/completions for several answers",
    "logprobs": "ask /v1/chat/completions for logprobs",
}
_IMAGES = {"iVBOR": "png", "/9j/": "jpeg", "R0lGOD": "gif", "UklGR": "webp"}
"""How the base64 of each kind of image begins."""


def asks_to_load(path: str, body: Mapping[str, Any]) -> bool:
    """Whether the request has nothing to answer: Ollama's clients load a model that way."""
    return not body.get("messages" if path == CHAT else "prompt") and not body.get("images")


def streams(body: Mapping[str, Any]) -> bool:
    """Ollama streams unless it is told not to."""
    return body.get("stream") is not False


def chat_body(path: str, body: Mapping[str, Any], model: str, thinks: bool) -> Json:
    """The request to /v1/chat/completions that asks for the same; fields that neither API has stay in it.

    `thinks` is whether the model can be told how much to think. Raises RequestError for what would change the answer and
    is not honoured.
    """
    for name, instead in _REFUSED.items():
        if body.get(name):
            raise RequestError(f"{name} is not supported here: {instead}.", name)
    messages = _conversation(body.get("messages")) if path == CHAT else _generated(body)
    # Ollama's own client sends empty tools.
    others = {
        name: value for name, value in body.items() if name not in _OWN | _REFUSED.keys() and value not in (None, [])
    }
    wanted = {
        "response_format": _format(body.get("format")),
        "reasoning_effort": _effort(body.get("think"), thinks),
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    stream = {"stream": True, "stream_options": {"include_usage": True}} if streams(body) else {"stream": False}
    return {**others, **_sampling(body.get("options")), **given, **stream, "model": model, "messages": messages}


def _sampling(options: Any) -> Json:
    """The options by their names in a chat completion; one that nobody knows as `options.NAME`, which is told there."""
    if options is not None and not isinstance(options, Mapping):
        raise RequestError("options must be an object.", "options")
    given = {name: value for name, value in (options or {}).items() if value is not None}
    for name, default in _DEFAULTS.items():
        if given.get(name, default) != default:
            raise RequestError(f"options.{name} is not supported: leave it out.", f"options.{name}")
    sampling: Json = {_OPTIONS[name]: value for name, value in given.items() if name in _OPTIONS}
    limit = given.get("num_predict", -1)
    if not isinstance(limit, int) or limit > 0:
        sampling["max_tokens"] = limit
    known = _OPTIONS.keys() | _DEFAULTS.keys() | _HINTS | {"num_predict"}
    sampling |= {f"options.{name}": value for name, value in given.items() if name not in known}
    # Ollama's way to say that any seed will do.
    if sampling.get("seed") == -1:
        del sampling["seed"]
    return sampling


def _format(form: Any) -> Json | None:
    if form is None or form == "":
        return None
    if form == "json":
        return {"type": "json_object"}
    if not isinstance(form, Mapping):
        raise RequestError("format must be 'json' or a JSON schema.", "format")
    return {"type": "json_schema", "json_schema": {"name": "format", "schema": form}}


def _effort(think: Any, thinks: bool) -> str | None:
    if think is None or (think is False and not thinks):
        return None
    if not isinstance(think, bool | str):
        raise RequestError("think must be true, false or an effort.", "think")
    return think if isinstance(think, str) else "medium" if think else "none"


def _generated(body: Mapping[str, Any]) -> list[Json]:
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    return [*system, _with_images({"role": "user", "content": body.get("prompt") or ""}, body.get("images"))]


def _conversation(messages: Any) -> list[Json]:
    if not isinstance(messages, list) or not all(isinstance(each, Mapping) for each in messages):
        raise RequestError("messages must be a list of objects.", "messages")
    pending = _Pending()
    return [_message(number, message, pending) for number, message in enumerate(messages)]


class _Pending:
    """The calls of one turn that have no result yet: Ollama's results may name only the tool."""

    def __init__(self) -> None:
        self.begin(())

    def begin(self, calls: Sequence[Json]) -> None:
        """The calls of another turn."""
        self._ids = [call["id"] for call in calls]
        self._all = deque(range(len(calls)))
        self._of: defaultdict[str, deque[int]] = defaultdict(deque)
        for number, call in enumerate(calls):
            self._of[call["function"]["name"]].append(number)
        self._taken: set[int] = set()

    def answered(self, tool: Any) -> str:
        """The id of the first call without a result, of this tool if it is named; it has one from now on."""
        # Each list is gone through once, however many calls and results there are.
        left = self._all if tool is None else self._of[str(tool)]
        while left:
            if (number := left.popleft()) not in self._taken:
                self._taken.add(number)
                return str(self._ids[number])
        return f"call_{tool or 'unknown'}"


def _message(number: int, message: Mapping[str, Any], pending: _Pending) -> Json:
    """A message of a chat."""
    own = ("images", "thinking", "tool_calls", "tool_name")
    out = {name: value for name, value in message.items() if name not in own}
    out.setdefault("content", "")
    if message.get("thinking"):
        out["reasoning"] = message["thinking"]
    if message.get("tool_calls"):
        out["tool_calls"] = list(_calls(number, message["tool_calls"]))
        pending.begin(out["tool_calls"])
    if message.get("role") == "tool" and "tool_call_id" not in out:
        out["tool_call_id"] = pending.answered(message.get("tool_name"))
    return _with_images(out, message.get("images"))


def _calls(number: int, calls: Any) -> Iterator[Json]:
    place = f"messages.{number}.tool_calls"
    for index, call in enumerate(calls if isinstance(calls, Sequence) else [None]):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise RequestError(f"{place} must be a list of functions with a name.", place)
        arguments = orjson.dumps(function.get("arguments") or {}).decode()
        id_ = call.get("id") or f"call_{number}_{index}"
        yield {"id": id_, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _with_images(message: Json, images: Any) -> Json:
    if not images:
        return message
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise RequestError("images must be a list of base64 texts.", "images")
    text = [{"type": "text", "text": message["content"]}] if message["content"] else []
    return {**message, "content": [*text, *({"type": "image_url", "image_url": {"url": _url(i)}} for i in images)]}


def _url(image: str) -> str:
    kind = next((kind for begin, kind in _IMAGES.items() if image.startswith(begin)), "png")
    return image if image.startswith("data:") else f"data:image/{kind};base64,{image}"
