"""vLLM's extensions of OpenAI's chat API: tokens per event, JSON grammars with fixed white space, token counts."""

from typing import Any

import orjson

from cappella.engines import openai
from cappella.errors import EngineBroke
from cappella.types import Json, OutputFormat, Prompt, Sampling

# Tokens per event of an answer that is not streamed to a client. The first and the last event come at once all the
# same; an answer that is cut off loses fewer tokens than this.
UNWATCHED_INTERVAL_TOKENS = 16

# With so many streams at once the gateway cannot forward single tokens: an event then holds two, with twice as many
# streams three, and at most four. At 400 runs this cut the added p99 time between tokens from 42 ms to 14 ms.
CONGESTED_STREAMS = 48
MAX_TOKENS_WATCHED = 4

# The white space of `json.dumps`, and no other. Where a grammar allows any white space, a small model may write nothing
# else: of 80 answers to random schemas 72 ran to their token limit that way, and none with this.
SPACING = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}


def body(model: str, prompt: Prompt, sampling: Sampling, in_flight: int = 0) -> dict[str, Any]:
    """A streamed chat request to an engine with `in_flight` other calls."""
    out = openai.body(model, prompt, sampling)
    if prompt.output_format is not None:
        out[prompt.output_format.field] = _spaced(prompt.output_format)
    if prompt.template_words:
        out["chat_template_kwargs"] = prompt.template_words
    interval = (
        min(MAX_TOKENS_WATCHED, 1 + in_flight // CONGESTED_STREAMS) if prompt.watched else UNWATCHED_INTERVAL_TOKENS
    )
    # Not with tools: many of vLLM's tool parsers need a stream of single tokens.
    if interval > 1 and not prompt.tools:
        out["stream_interval"] = interval
    return out


def _spaced(output_format: OutputFormat) -> Json:
    """The output format, with SPACING added to its JSON schema if it has one."""
    value = output_format.value
    if output_format.field == "structured_outputs":
        schema: Any = {"type": "object"} if value.get("json_object") else value.get("json")
        schema = orjson.loads(schema) if isinstance(schema, str) else schema
        return value if schema is None else {"json": {**schema, **SPACING}}
    plain: Any = {"name": "object", "schema": {"type": "object"}}
    named: Any = value["json_schema"] if value["type"] == "json_schema" else plain
    return {"type": "json_schema", "json_schema": {**named, "schema": {**named["schema"], **SPACING}}}


def forms(prompt: Prompt) -> Json:
    """The fields of a request from which the server makes grammars."""
    form = prompt.output_format
    return {
        "tools": list(prompt.tools),
        "tool_choice": prompt.tool_choice,
        **({form.field: form.value} if form else {}),
    }


def with_field(body: bytes, name: str, value: str) -> bytes:
    """A JSON object, as bytes, with one more field at its end; its other bytes stay as they are."""
    begin = body.rstrip()[:-1].rstrip()
    return begin + (b"," if begin != b"{" else b"") + orjson.dumps({name: value})[1:]


def token_count(reply: bytes) -> int:
    """The count in a reply of /tokenize. Raises EngineBroke."""
    try:
        return int(orjson.loads(reply)["count"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise EngineBroke("the engine returned no token count") from error
